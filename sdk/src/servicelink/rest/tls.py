"""The TLS context of a binding: the application's own, or one that trusts the roots that the binding names."""

import ssl

from servicelink.binding import Binding, TlsFiles


class Contexts:
    """Answers the context for a binding; the same one as long as its files are the same, so connections are kept."""

    def __init__(self, own: ssl.SSLContext | None = None) -> None:
        self._own = own
        self._of: TlsFiles | None = None
        self._context: ssl.SSLContext | None = None

    def __call__(self, binding: Binding) -> ssl.SSLContext | None:
        """Answer the context, None for the engine's own, which trusts what the system trusts."""
        if self._own is not None or binding.tls is None:
            return self._own
        if binding.tls is not self._of and binding.tls != self._of:
            self._context = _trusting(binding.tls)
        self._of = binding.tls
        return self._context


def _trusting(files: TlsFiles) -> ssl.SSLContext | None:
    if not files.trust:
        return None
    context = ssl.create_default_context(cadata=files.trust)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

"""The TLS context of a binding: the application's own, or one that trusts the roots that the binding names."""

import ssl

from servicelink.binding import Binding, TlsFiles


class Contexts:
    """Answers the context for a binding; the same one as long as its files are the same, so connections are kept."""

    def __init__(self, own: ssl.SSLContext | None = None) -> None:
        self._own = own
        self._known: tuple[TlsFiles, ssl.SSLContext | None] | None = None

    def __call__(self, binding: Binding) -> ssl.SSLContext | None:
        """Answer the context, None for the engine's own, which trusts what the system trusts."""
        if self._own is not None or binding.tls is None:
            return self._own
        # One reference is read and written at once, whichever thread does it.
        known = self._known
        if known is None or known[0] != binding.tls:
            known = self._known = (binding.tls, _trusting(binding.tls))
        return known[1]


def _trusting(files: TlsFiles) -> ssl.SSLContext | None:
    if not files.trust:
        return None
    context = ssl.create_default_context(cadata=files.trust)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

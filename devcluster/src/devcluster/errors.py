"""The one error of this tool: what went wrong, and what its user can do about it."""


class DevclusterError(Exception):
    """Something its user can mend.

    `problem` says what is wrong in one sentence, `mend` names the command or change that helps, `evidence` holds lines
    to look at (the end of a log or of a build's output).
    """

    def __init__(self, problem: str, *, mend: str = "", evidence: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.mend = mend
        self.evidence = evidence

    def __str__(self) -> str:
        parts = [self.problem]
        if self.evidence:
            parts += [f"    {line}" for line in self.evidence.splitlines()]
        if self.mend:
            parts.append(f"To mend it: {self.mend}")
        return "\n".join(parts)

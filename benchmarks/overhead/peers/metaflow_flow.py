"""Ten trivial steps in one Metaflow flow; started with `python metaflow_flow.py run`."""

from metaflow import FlowSpec, step


class TenFlow(FlowSpec):
    """Ten steps in a chain; Metaflow runs each in a process of its own."""

    @step
    def start(self) -> None:
        """Begin."""
        self.next(self.step_1)

    @step
    def step_1(self) -> None:
        """Trivial step 1."""
        self.number = 1
        self.next(self.step_2)

    @step
    def step_2(self) -> None:
        """Trivial step 2."""
        self.number = 2
        self.next(self.step_3)

    @step
    def step_3(self) -> None:
        """Trivial step 3."""
        self.number = 3
        self.next(self.step_4)

    @step
    def step_4(self) -> None:
        """Trivial step 4."""
        self.number = 4
        self.next(self.step_5)

    @step
    def step_5(self) -> None:
        """Trivial step 5."""
        self.number = 5
        self.next(self.step_6)

    @step
    def step_6(self) -> None:
        """Trivial step 6."""
        self.number = 6
        self.next(self.step_7)

    @step
    def step_7(self) -> None:
        """Trivial step 7."""
        self.number = 7
        self.next(self.step_8)

    @step
    def step_8(self) -> None:
        """Trivial step 8."""
        self.number = 8
        self.next(self.step_9)

    @step
    def step_9(self) -> None:
        """Trivial step 9."""
        self.number = 9
        self.next(self.step_10)

    @step
    def step_10(self) -> None:
        """Trivial step 10."""
        self.number = 10
        self.next(self.end)

    @step
    def end(self) -> None:
        """Finish."""


if __name__ == "__main__":
    TenFlow()

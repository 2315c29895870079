"""What object storage can do wrong; apart from s3.py, so that who only has to know it loads no S3 client."""


class StoreFault(Exception):
    """Storage did not do what it was asked. `todo` says what an admin can do; "" where waiting is all."""

    def __init__(self, reason: str, todo: str = "", *, of_the_store: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.todo = todo
        self.of_the_store = of_the_store  # every object would meet it


class NoObject(StoreFault):
    """There is no object of that key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no object {key}", of_the_store=False)

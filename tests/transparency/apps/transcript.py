"""What the applications share: a call's outcome as a line of the transcript."""


def show(label, function, *arguments):
    """Print what a call returned or raised; return the former."""
    try:
        result = function(*arguments)
    except OSError as error:
        print(label, "OSError", error.errno)
        return None
    except Exception as error:
        print(label, type(error).__name__)
        return None
    print(label, repr(result))
    return result

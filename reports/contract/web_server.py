"""Tracking servers: the message for a wrong address, and whether one answers.

They are asked as MLflow's client asks: by `requests`, through the same proxies.
"""

from __future__ import annotations

import re

from reports.contract.text import without_passwords

WEB_SCHEMES = ("http", "https")
CONNECT_S = 5.0
ANSWER_S = 10.0
"""A server that has not answered a simple request for this long is down."""


def invalid_address(uri: str) -> str:
    """Return the message for a URI whose host or port cannot be read. The error of Python may contain the password."""
    return (
        f"expected scheme://host:port, with a port up to 65535, got {without_passwords(uri)!r}. "
        "Give another --tracking-uri; in a password, / is %2F, # is %23, ? is %3F and @ is %40."
    )


def ask_server(uri: str) -> None:
    """Raise OSError if a web server gives no answer at all. What it answers is left to MLflow."""
    import requests  # takes a tenth of a second, and only servers need it

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=(CONNECT_S, ANSWER_S), allow_redirects=False).close()
    except requests.exceptions.SSLError:
        return
    except requests.exceptions.ReadTimeout as error:
        raise OSError(f"no answer within {ANSWER_S:.0f} s") from error
    except requests.exceptions.ConnectionError as error:
        raise OSError(_in_short(error)) from error
    except requests.exceptions.RequestException as error:
        raise OSError(str(error)) from error


def _in_short(error: Exception) -> str:
    """Return why there was no connection, taken from the long line that requests makes of it."""
    import requests

    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection within {CONNECT_S:.0f} s"
    found = re.search(r"\[Errno -?\d+\] [^'\")]+", str(error))
    why = found[0] if found else "a connection that ended without an answer"
    return f"{why} (of the proxy)" if isinstance(error, requests.exceptions.ProxyError) else why

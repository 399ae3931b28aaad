"""The module `requests` with a web server."""

import requests


def main(port):
    base = "http://127.0.0.1:" + port
    for path in ("/", "/missing"):
        r = requests.get(base + path)
        print(path, r.status_code, r.content)
        r.close()
    r = requests.post(base + "/", json={"a": 1})
    print(r.status_code, r.reason, r.text)
    r.close()

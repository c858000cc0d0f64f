"""What HTML pages hold, and what they may not."""

import re
from html.parser import HTMLParser


class Elements(HTMLParser):
    """All start tags with their attributes, and all text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def check_alone(html):
    """A page refers to nothing outside itself, and runs nothing."""
    for tag, attributes in Elements(html).tags:
        assert tag not in {"script", "link", "iframe", "img", "object", "embed", "base"}
        for name, value in attributes.items():
            if name.split(":")[-1] in {"src", "href", "action", "data", "srcset"}:
                assert value.startswith(("#", "data:image/png;base64,")), (tag, name)
            assert not name.startswith("on")
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)

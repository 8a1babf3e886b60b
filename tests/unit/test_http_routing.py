"""Routes are found on raw paths, where an encoded slash is not a slash."""

import pytest

from broker.http.routing import Router, decode
from feeds.errors import BadRequest


@pytest.fixture
def router() -> Router[str]:
    return Router(
        [
            ("GET", "/", "root"),
            ("GET", "/barrels", "barrels"),
            ("GET", "/barrels/{barrel}", "barrel"),
            ("POST", "/barrels/{barrel}/docs", "create"),
            ("GET", "/barrels/{barrel}/docs/{id...}", "get"),
            ("PUT", "/barrels/{barrel}/docs/{id...}", "put"),
            ("POST", "/barrels/{barrel}/docs/_bulk", "bulk"),
        ]
    )


@pytest.mark.parametrize(
    ("path", "template", "params"),
    [
        ("/", "/", {}),
        ("/barrels", "/barrels", {}),
        ("/barrels/geo", "/barrels/{barrel}", {"barrel": "geo"}),
        ("/barrels/a%2Fb", "/barrels/{barrel}", {"barrel": "a%2Fb"}),
        ("/barrels/geo/docs/x", "/barrels/{barrel}/docs/{id...}", {"barrel": "geo", "id": "x"}),
        ("/barrels/geo/docs/a/b/c", "/barrels/{barrel}/docs/{id...}", {"barrel": "geo", "id": "a/b/c"}),
        ("/barrels/geo/docs/a%2Fb", "/barrels/{barrel}/docs/{id...}", {"barrel": "geo", "id": "a%2Fb"}),
        ("/barrels/geo/docs//a", "/barrels/{barrel}/docs/{id...}", {"barrel": "geo", "id": "/a"}),
        ("/barrels/geo/docs/_bulk", "/barrels/{barrel}/docs/_bulk", {"barrel": "geo"}),
        ("/barrels/geo/docs/_bulk/x", "/barrels/{barrel}/docs/{id...}", {"barrel": "geo", "id": "_bulk/x"}),
    ],
)
def test_a_path_leads_to_its_template(router: Router[str], path: str, template: str, params: dict[str, str]) -> None:
    match = router.match(path)
    assert match is not None
    assert (match.template, match.params) == (template, params)


@pytest.mark.parametrize(
    "path", ["/nothing", "/barrels/", "/barrels//docs/x", "/barrels/geo/docs/", "/barrels/geo/x", ""]
)
def test_what_no_template_covers_is_nowhere(router: Router[str], path: str) -> None:
    match = router.match(path)
    assert match is None or match.template == "/"
    assert match is None or path == ""


def test_the_allow_header_names_every_method_and_head(router: Router[str]) -> None:
    match = router.match("/barrels/geo/docs/x")
    assert match is not None
    assert match.allow == "GET, HEAD, PUT"


def test_a_second_target_for_one_place_is_a_mistake(router: Router[str]) -> None:
    with pytest.raises(ValueError, match="stands beside"):
        router.add("GET", "/barrels/{name}", "other")


def test_parts_are_decoded_as_utf_8() -> None:
    assert decode("caf%C3%A9%2F%25+", "id") == "café/%+"


@pytest.mark.parametrize(
    ("part", "why"), [("%", "broken"), ("%4", "broken"), ("a%zz", "broken"), ("%ff", "UTF-8"), ("%ED%A0%80", "UTF-8")]
)
def test_a_part_that_cannot_be_decoded_is_refused(part: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        decode(part, "id")

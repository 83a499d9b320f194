"""The hub: what it lists and says of files, who gets the token, and its refusals in words."""

from __future__ import annotations

import socket
import ssl
import threading
from urllib import request
from urllib.error import URLError
from urllib.parse import urlsplit

import pytest
from hubs import put
from standins.fakehub import GOOD_TOKEN

from musubitlx import hub as hubs
from musubitlx.errors import UserError
from musubitlx.hub import Hub, HubTrouble

REPO = "owner/one"


@pytest.fixture
def one(hub):
    """A hub with a small and a large file."""
    put(hub, "config.json", b"{}")
    put(hub, "model.safetensors", 200_000)
    return hub


def test_a_listing_names_files_with_length_and_the_checksum_of_large_ones(one):
    small, large = Hub(one.url).files(REPO)
    assert (small.path, small.bytes, small.sha256) == ("config.json", 2, None)
    assert (large.path, large.bytes) == ("model.safetensors", 200_000)
    assert large.sha256 == one.sha256(one.root / REPO / "model.safetensors")
    assert small.oid == "9e26dfeeb6e641a33dae4961196235bdb965b21b"  # git hash-object
    assert large.oid is None


def test_a_listing_of_several_pages_is_read_to_its_end(one):
    for number in range(7):
        put(one, f"part {number}.txt", 10)
    one.mood.page = 2
    assert len(Hub(one.url).files(REPO)) == 9


EVIL = sorted(
    (
        "../outside",
        "/etc/passwd",
        "a/../../outside",
        "..",
        "a//b",
        "C:\\outside",
        "..\\outside",
        "con",
        "a\x00b",
        "\ud800",
        ".ssh/authorized_keys",
        "x" * 300,
    )
)


def test_names_that_lead_elsewhere_are_not_in_a_listing(one):
    one.mood.evil = EVIL
    assert [file.path for file in Hub(one.url).files(REPO)] == ["config.json", "model.safetensors"]


def test_what_a_file_is_can_be_asked_without_getting_it(one):
    found = Hub(one.url).look(REPO, "model.safetensors")
    assert found.bytes == 200_000
    assert found.sha256 == found.etag == one.sha256(one.root / REPO / "model.safetensors")
    assert Hub(one.url).look(REPO, "config.json").sha256 is None
    assert one.sent("/resolve/", "GET") == 0


def test_a_repository_under_a_new_name_is_found(one):
    one.mood.moved = {"owner/old": REPO}
    for name, size in (("config.json", 2), ("model.safetensors", 200_000)):
        assert Hub(one.url, GOOD_TOKEN).look("owner/old", name).bytes == size
    assert not any(seen.host.startswith("localhost") for seen in one.seen)


def test_where_the_way_to_a_file_does_not_tell_the_file_itself_is_asked(one):
    one.mood.linked = False
    found = Hub(one.url, GOOD_TOKEN).look(REPO, "model.safetensors")
    assert (found.bytes, found.sha256) == (200_000, None)
    assert [seen.token for seen in one.seen] == [True, False]


def test_the_etag_of_a_mirror_is_no_checksum(one):
    one.mood.linked, one.mood.redirect, one.mood.etag = False, False, "1" * 64
    found = Hub(one.url).look(REPO, "model.safetensors")
    assert (found.etag, found.sha256) == ("1" * 64, None)


# -- refusals --------------------------------------------------------------------------------------


def trouble(action) -> HubTrouble:
    """What an action is refused with."""
    with pytest.raises(HubTrouble) as caught:
        action()
    return caught.value


def test_a_gated_repository_tells_to_accept_its_terms(one):
    one.mood.gated = [REPO]
    told = trouble(lambda: Hub(one.url).files(REPO))
    assert "gated" in str(told)
    assert "HF_TOKEN" in told.hint
    assert f"/{REPO}" in told.hint
    assert not told.passing
    assert len(Hub(one.url, GOOD_TOKEN).files(REPO)) == 2


def test_a_repository_that_is_not_there_is_named(one):
    for token in (None, GOOD_TOKEN):
        told = trouble(lambda token=token: Hub(one.url, token).files("owner/two"))
        assert "no repository owner/two" in str(told)
        assert not told.passing


def test_a_file_that_is_not_there_is_named(one):
    told = trouble(lambda: Hub(one.url).look(REPO, "folder/none.bin"))
    assert str(told) == f"There is no file folder/none.bin in {REPO}."


def test_a_wrong_token_does_not_bar_what_everybody_may_have(one):
    asked = Hub(one.url, "hf_expired")
    assert len(asked.files(REPO)) == 2
    assert asked.look(REPO, "model.safetensors").bytes == 200_000
    assert [seen.token for seen in one.seen] == [True, False] * 2


def test_a_wrong_token_is_said_to_be_wrong_and_not_repeated(one):
    one.mood.gated = [REPO]
    told = trouble(lambda: Hub(one.url, "hf_secret").files(REPO))
    assert "does not accept the access token" in str(told)
    assert "hf_secret" not in f"{told} {told.hint}"


@pytest.mark.parametrize("status", (429, 500, 502, 503))
def test_trouble_of_the_hub_may_pass(one, status):
    one.mood.status = status
    told = trouble(lambda: Hub(one.url).files(REPO))
    assert str(status) in str(told)
    assert told.passing


def test_a_page_in_place_of_a_listing_is_told(one, monkeypatch):
    monkeypatch.setattr("standins.fakehub.json.dumps", lambda *_: "<html>Log in</html>")
    assert "no list of files" in str(trouble(lambda: Hub(one.url).files(REPO)))


def test_offline_means_that_nothing_is_asked(one, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in str(trouble(lambda: Hub(one.url).files(REPO)))
    assert one.seen == []


def test_a_port_where_nobody_listens_is_told(hub):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told = trouble(lambda: Hub(f"http://127.0.0.1:{port}").files(REPO))
    assert "refused" in str(told)
    assert told.passing


def test_a_name_nobody_knows_is_told(hub):
    told = trouble(lambda: Hub("http://hub.invalid").files(REPO))
    assert "hub.invalid can't be resolved" in str(told)
    assert told.passing


def test_a_hub_that_keeps_silent_is_given_up(hub):
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = Hub(f"http://127.0.0.1:{server.getsockname()[1]}")
        told = trouble(lambda: silent.look(REPO, "config.json", stall_s=0.2))
    assert "has not answered for 0.2 s" in str(told)
    assert told.passing


def test_a_connection_that_can_not_be_encrypted_is_told(hub):
    told = trouble(lambda: Hub(hub.url.replace("http:", "https:")).files(REPO))
    assert "No encrypted connection" in str(told)


def test_a_certificate_that_is_not_valid_is_told_with_the_remedy():
    error = ssl.SSLCertVerificationError(1, "no")
    error.verify_message = "self-signed certificate"
    told = hubs.no_answer(URLError(error), "hub.test", 30)
    assert "self-signed certificate" in str(told)
    assert "SSL_CERT_FILE" in told.hint
    assert not told.passing


def test_an_answer_that_breaks_off_may_be_asked_again(hub):
    def hang_up(server: socket.socket) -> None:
        client, _ = server.accept()
        client.recv(1000)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[")
        client.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=(server,), daemon=True).start()
        told = trouble(lambda: Hub(f"http://127.0.0.1:{server.getsockname()[1]}").files(REPO))
    assert "broke off" in str(told)
    assert told.passing


def test_a_redirect_away_from_https_is_refused(one):
    address = Hub(one.url).address(REPO, "model.safetensors")
    with pytest.raises(URLError, match="not https"):
        hubs._opener(allow_http=False).open(address, timeout=5)
    with hubs._opener(allow_http=True).open(address, timeout=5) as answer:
        assert len(answer.read()) == 200_000


# -- the environment -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed", sorted(("ftp://hub", "hub.test", "https://", "https://a:secret@hub", "http://h:x"))
)
def test_an_endpoint_that_is_no_address_is_refused(monkeypatch, typed):
    monkeypatch.setenv("HF_ENDPOINT", typed)
    with pytest.raises(UserError, match="HF_ENDPOINT") as caught:
        hubs.endpoint()
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_without_an_endpoint_the_hub_itself_is_asked(hub, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT")
    assert Hub.of_environment().endpoint.startswith("https://")


@pytest.mark.parametrize("name", ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
def test_the_token_comes_from_the_environment(hub, monkeypatch, name):
    monkeypatch.setenv(name, " hf_mine\n")
    assert hubs.access_token() == "hf_mine"


def log_in(folder, token="hf_kept"):
    """Leave a token as a login does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(f"{token}\n")


@pytest.mark.parametrize("place", ("HF_HOME", "home", "HF_TOKEN_PATH"))
def test_the_token_comes_from_the_file_of_a_login(hub, tmp_path, monkeypatch, place):
    elsewhere = tmp_path / "elsewhere"
    if place == "home":
        elsewhere = tmp_path / "user/.cache/huggingface"
    else:
        monkeypatch.setenv(place, str(elsewhere / ("token" if "PATH" in place else "")))
    log_in(elsewhere)
    assert hubs.access_token() == "hf_kept"


@pytest.mark.parametrize("name", ("HF_HOME", "HF_TOKEN_PATH"))
def test_where_a_place_is_chosen_no_token_comes_from_another(hub, tmp_path, monkeypatch, name):
    log_in(tmp_path / "user/.cache/huggingface")
    assert hubs.access_token() == "hf_kept"
    monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    assert hubs.access_token() is None


def test_a_token_that_is_not_to_be_sent_unasked_is_not(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    log_in(tmp_path / "user/.cache/huggingface")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert hubs.access_token() is None


def test_a_token_may_be_long_but_not_endless(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "x" * 4096)
    assert hubs.access_token() == "x" * 4096
    monkeypatch.setenv("HF_TOKEN", "x" * 4097)
    with pytest.raises(UserError, match="too long"):
        hubs.access_token()


def test_without_a_login_there_is_no_token(hub):
    assert hubs.access_token() is None


def test_a_token_that_can_be_none_is_refused_without_being_repeated(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret and\nmore")
    with pytest.raises(UserError, match="HF_TOKEN") as caught:
        Hub.of_environment()
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_the_token_goes_to_the_hub_and_never_to_the_cdn(one):
    asked = Hub(one.url, GOOD_TOKEN)
    with asked.answer(asked.address(REPO, "model.safetensors")) as answer:
        assert len(answer.read()) == 200_000
    with_token = {(seen.host.split(":")[0], seen.token) for seen in one.seen}
    assert with_token == {("127.0.0.1", True), ("localhost", False)}
    assert GOOD_TOKEN not in repr(asked)


def test_the_token_is_not_sent_where_all_can_read_it(one, monkeypatch):
    monkeypatch.setenv("http_proxy", one.url)
    one.mood.gated = [REPO]
    told = trouble(lambda: Hub("http://hub.test", GOOD_TOKEN).files(REPO))
    assert [seen.token for seen in one.seen] == [False]
    assert "is gated" in str(told)


# -- proxies ---------------------------------------------------------------------------------------


def test_a_proxy_of_the_environment_is_used(one, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", one.url)
    monkeypatch.setenv("http_proxy", one.url)
    asked = Hub("http://hub.test")  # a name nobody resolves: only the proxy can
    assert len(asked.files(REPO)) == 2
    assert urlsplit(one.seen[0].path).hostname == "hub.test"


def test_no_proxy_is_used_where_it_is_excluded(one, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert len(Hub(one.url).files(REPO)) == 2


def test_where_a_proxy_is_set_it_is_named_as_a_possible_cause(hub, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert "proxy" in trouble(lambda: Hub("http://hub.test").files(REPO)).hint


def test_what_a_proxy_is_told_does_not_go_on_with_a_redirect(hub):
    told = {"Authorization": "Bearer x", "Proxy-Authorization": "Basic x", "Range": "bytes=1-"}
    before = request.Request("https://hub.test/a", headers=told)
    for there in ("https://hub.test/b", "https://cdn.test/b"):
        after = hubs._Redirects(False).redirect_request(before, None, 302, "", {}, there)
        assert "Proxy-authorization" not in after.headers
        assert after.headers["Range"] == "bytes=1-"
        assert ("Authorization" in after.headers) == ("hub.test" in there)

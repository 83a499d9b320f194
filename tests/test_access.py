"""Who comes in and who does not."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from threading import Thread

import pytest

from musubitlx import access
from musubitlx.access import Access, TooManyTries, Verdict, Visit
from musubitlx.errors import Forbidden, Invalid, Unauthorized
from musubitlx.home import Home

HERE = Visit(
    method="GET",
    path="/",
    peer="127.0.0.1",
    host="localhost:5000",
    origin=None,
    sec_fetch_site=None,
    forwarded=False,
    cookie=None,
    query_token=None,
    bearer=None,
)
LAN = replace(HERE, peer="192.168.1.7", host="192.168.1.20:5000")
IN = Verdict(set_cookie=False)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path).make()


@pytest.fixture
def door(home):
    return Access(home, token="right-token", allow_hosts=["GPU-Box.example"])


# -- this machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:5000", "127.0.0.1:5000", "[::1]:5000"])
def test_this_machine_comes_in_without_a_token(door, peer, host):
    assert door.check(replace(HERE, peer=peer, host=host)) == IN


@pytest.mark.parametrize(
    "change",
    [
        {"peer": "192.168.1.7"},
        {"peer": "::ffff:192.168.1.7"},
        {"peer": ""},
        {"host": "192.168.1.20:5000"},  # a tunnel or proxy on this machine may stand behind it
        {"host": "0.0.0.0:5000"},
        {"forwarded": True},
    ],
)
def test_whoever_only_seems_to_be_this_machine_needs_the_token(door, change):
    with pytest.raises(Unauthorized):
        door.check(replace(HERE, **change))


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["10.0.0.5", "[fe80::1]:5000", "gpu-box.EXAMPLE:5000", socket.gethostname(), "localhost:1"],
)
def test_addresses_and_own_names_are_hosts(door, host):
    assert door.check(replace(LAN, host=host, cookie="right-token")) == IN


def test_the_name_on_the_local_network_is_a_host(door, monkeypatch):
    monkeypatch.setattr(access.socket, "gethostname", lambda: "Box.lan")
    for host in ("box", "box.lan:5000", "box.local"):
        assert door.check(replace(LAN, host=host, cookie="right-token")) == IN


@pytest.mark.parametrize(
    "host",
    [
        *(None, "", "evil.example", "localhost.evil.example:5000", "gpu-box.example.evil.com"),
        *("[::1", "::1", "localhost:5000:1", "localhost:x", "localhost@evil", "a b"),
        *("1.2.3", "2130706433"),  # not as a browser writes an address
    ],
)
def test_a_name_of_somebody_else_is_refused_even_with_the_token(door, host):
    with pytest.raises(Forbidden):
        door.check(replace(HERE, host=host, cookie="right-token"))


def test_the_full_name_is_learnt_beside_the_requests(home, monkeypatch):
    monkeypatch.setattr(access.socket, "getfqdn", lambda: "Box.Office.example.")
    monkeypatch.setattr(access.threading, "Thread", lambda target, **_: Immediately(target))
    door = Access(home, no_token=True)
    assert door.check(replace(LAN, host="box.office.example")) == IN


class Immediately:
    """A thread that has run as soon as it starts."""

    def __init__(self, target):
        self.start = target


# -- the token ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["cookie", "query_token", "bearer"])
def test_the_token_lets_in_from_each_place_and_the_link_sets_the_cookie(door, place):
    verdict = door.check(replace(LAN, **{place: "right-token"}))
    assert verdict == Verdict(set_cookie=place == "query_token")


@pytest.mark.parametrize("token", ["wrong", "right-token ", "Right-Token", "", "ü", "\udcff"])
@pytest.mark.parametrize("place", ["cookie", "query_token", "bearer"])
def test_a_wrong_token_lets_nobody_in(door, place, token):
    with pytest.raises(Unauthorized) as caught:
        door.check(replace(LAN, **{place: token}))
    assert "right-token" not in str(caught.value) + str(caught.value.hint)


def test_a_stale_cookie_does_not_spoil_a_right_link(door):
    visit = replace(LAN, cookie="old", query_token="right-token")
    assert door.check(visit) == Verdict(set_cookie=True)


def test_without_token_everyone_comes_in_but_foreign_pages_do_not(home):
    door = Access(home, no_token=True)
    assert door.token is None
    assert door.check(LAN) == IN
    with pytest.raises(Forbidden):
        door.check(replace(LAN, host="evil.example"))
    with pytest.raises(Forbidden):
        door.check(replace(LAN, method="POST", origin="http://evil.example"))


@pytest.mark.parametrize("path", ["/healthz", "/login", "/static/css/tokens.css"])
def test_what_tells_nothing_is_open_to_all_by_a_right_name(door, path):
    assert door.check(replace(LAN, path=path)) == IN
    assert door.check(replace(LAN, path=path, query_token="right-token")) == IN  # tells nothing
    with pytest.raises(Forbidden):
        door.check(replace(LAN, path=path, host="evil.example"))


@pytest.mark.parametrize("path", ["/", "/api/state", "/staticfoo", "/healthz/x", "/loginx"])
def test_everything_else_is_not(door, path):
    with pytest.raises(Unauthorized):
        door.check(replace(LAN, path=path))


# -- foreign pages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},  # not a browser
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "same-origin", "origin": "https://a-proxy.example"},
        {"origin": "http://localhost:5000"},
        {"origin": "HTTP://LOCALHOST:5000"},
    ],
)
def test_own_pages_and_programs_may_change_things(door, headers):
    assert door.check(replace(HERE, method="POST", path="/api/projects", **headers)) == IN


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},  # another port of this machine
        {"sec_fetch_site": "", "origin": "http://localhost:5000"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:5001"},
        {"origin": "http://localhost"},
        {"origin": "http://127.0.0.1:5000"},
        {"origin": "null"},
        {"origin": "file://"},
        {"origin": ""},
        {"origin": "http://localhost:99999999"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
def test_foreign_pages_may_change_nothing(door, method, headers):
    with pytest.raises(Forbidden):
        door.check(replace(HERE, method=method, path="/api/projects", **headers))


def test_a_host_without_port_means_the_usual_one(door):
    for origin in ("http://10.0.0.5", "https://10.0.0.5", "https://10.0.0.5:443"):
        visit = replace(LAN, method="POST", host="10.0.0.5", origin=origin, cookie="right-token")
        assert door.check(visit) == IN


def test_a_foreign_page_may_link_here_but_not_use_the_api(door):
    assert door.check(replace(HERE, sec_fetch_site="cross-site")) == IN
    with pytest.raises(Forbidden):
        door.check(replace(HERE, path="/api/events", sec_fetch_site="cross-site"))


# -- guessing -------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def guess(door, **visit):
    with pytest.raises(Unauthorized):
        door.check(replace(LAN, **visit))


def test_after_ten_wrong_tokens_a_peer_waits_a_minute_and_others_do_not(door):
    door._wrong = access.WrongTokens(clock := Clock())
    for _ in range(10):
        guess(door, query_token="wrong")
    with pytest.raises(TooManyTries) as caught:
        door.check(replace(LAN, query_token="right-token"))
    assert caught.value.http_status == 429 and "60 s" in str(caught.value)
    assert door.check(replace(LAN, peer="192.168.1.8", cookie="right-token")) == IN
    clock.now += 61
    assert door.check(replace(LAN, cookie="right-token")) == IN


def test_a_page_left_open_with_an_old_cookie_does_not_lock_its_browser_out(door):
    for _ in range(50):
        guess(door, cookie="of yesterday")
    assert door.check(replace(LAN, query_token="right-token")) == Verdict(set_cookie=True)


def test_guessing_by_cookie_is_stopped_too(door):
    for number in range(10):
        guess(door, cookie=f"guess-{number}")
    with pytest.raises(TooManyTries):
        door.check(replace(LAN, cookie="right-token"))


def test_many_peers_do_not_fill_the_memory(door):
    for number in range(access.MAX_PEERS + 50):
        guess(door, peer=f"peer-{number}", bearer="wrong")
    assert len(door._wrong._peers) == access.MAX_PEERS


def test_asking_without_any_token_is_not_guessing(door):
    for _ in range(30):
        guess(door)
    assert door.check(replace(LAN, cookie="right-token")) == IN


# -- where the token is kept ----------------------------------------------------------------------


def test_the_token_is_made_once_and_only_its_owner_can_read_it(home):
    first = Access(home).token
    if os.name == "posix":
        assert home.token_file.stat().st_mode & 0o777 == 0o600
    assert len(first) >= 32
    assert Access(home).token == first
    assert home.token_file.read_text().strip() == first


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_rights_that_were_too_wide_are_narrowed(home):
    token = Access(home).token
    home.token_file.chmod(0o644)
    assert Access(home).token == token
    assert home.token_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"two words\n", b"\xff\xfe\n", b"\0" * 40])
def test_a_file_that_holds_no_token_is_replaced(home, content):
    home.token_file.write_bytes(content)
    token = Access(home).token
    assert len(token) >= 32 and home.token_file.read_text().strip() == token


def test_servers_that_start_at_once_get_the_same_token(home):
    tokens = []
    threads = [Thread(target=lambda: tokens.append(Access(home).token)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 8 and len(set(tokens)) == 1


def test_a_chosen_token_stays_in_memory_and_must_fit_in_a_link(home):
    assert Access(home, token="chosen").token == "chosen"
    assert not home.token_file.exists()
    for bad in ("", "two words", "a&b", "ü", "a\nb"):
        with pytest.raises(Invalid):
            Access(home, token=bad)


# -- addresses ------------------------------------------------------------------------------------


def test_one_address_is_told_as_it_is():
    assert access.addresses(5000, "127.0.0.1") == [("this computer", "http://127.0.0.1:5000")]
    assert access.addresses(80, "10.1.2.3") == [("network", "http://10.1.2.3:80")]
    assert access.addresses(5000, "::1") == [("this computer", "http://[::1]:5000")]


def test_all_addresses_are_told_with_virtual_networks_last(monkeypatch):
    import psutil

    class Entry:
        def __init__(self, address, family=socket.AF_INET):
            self.address, self.family = address, family

    found = {
        "lo": [Entry("127.0.0.1"), Entry("::1", socket.AF_INET6)],
        "docker0": [Entry("172.17.0.1")],
        "eth0": [Entry("192.168.1.20"), Entry("fe80::1%eth0", socket.AF_INET6)],
        "eth1": [Entry("169.254.3.4"), Entry("2001:db8::5", socket.AF_INET6)],
        "mac": [Entry("00:11:22:33:44:55", 17)],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    lan = [("network", "http://192.168.1.20:5000"), ("network", "http://172.17.0.1:5000")]
    assert access.addresses(5000, "0.0.0.0") == [("this computer", "http://127.0.0.1:5000"), *lan]
    everything = access.addresses(5000, "::")
    assert everything[0] == ("this computer", "http://localhost:5000")
    assert ("network", "http://[2001:db8::5]:5000") in everything
    assert len(everything) == 4

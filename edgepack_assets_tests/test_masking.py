"""Secrets are masked in every form they come in; other text stays as it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack_assets.masking import without_secrets

TEXT = st.text(
    st.characters(codec="ascii", exclude_characters=" \t\r\n\x0b\x0c\x1c\x1d\x1e\x1f\x00"), min_size=8, max_size=40
)
"""A secret of any printable characters, quotes and backslashes among them."""
PLAIN = TEXT.filter(lambda secret: secret[0] not in "'\"\\|>")
"""What may stand without quotes."""
BASE64 = st.text("ABCDEFabcdef0123456789+/", min_size=8, max_size=60)
URL_SAFE = st.text("ABCDEFabcdef0123456789-_", min_size=8, max_size=60)
NAMES = ("password", "PASSWD", "client_secret", "AZURE_CLIENT_SECRET", "access_token", "api-key", "account_key",
         "Passwort", "passphrase", "db.pwd", "SharedAccessKey", "private_key", "storage_connection_string")  # fmt: skip

FORMS: dict[str, tuple[st.SearchStrategy[str], Callable[[str, str], str]]] = {
    "yaml": (TEXT, lambda name, s: yaml.safe_dump({"before": 1, name: s, "z": 2}, width=1000)),
    "yaml, plain": (PLAIN, lambda name, s: f"a: 1\n{name}: {s}\nb: 2"),
    "yaml in a list": (PLAIN, lambda name, s: f"- {name}: {s}\n"),
    "yaml, a block": (PLAIN, lambda name, s: f"  {name}: |\n    {s}\n    {s}\n"),
    "yaml, words": (PLAIN, lambda name, s: f"{name}: two {s} words {s}"),
    "yaml, a block with empty lines": (
        PLAIN, lambda name, s: f"- {name}: |  # old\r\n\r\n    a\r\n\r\n    {s}\r\n  user: x"
    ),
    "yaml, a block after a quoted name": (PLAIN, lambda name, s: f'"{name}": >-\n  {s}\n'),
    "yaml, the next line": (PLAIN, lambda name, s: f"{name}: &anchor\n  {s}\nuser: x"),
    "yaml, folded": (PLAIN, lambda name, s: f"{name}: some\n  {s}\n  {s}\nuser: x"),
    "yaml, quoted over lines": (PLAIN, lambda name, s: f'{name}: "some\n  {s}"\nuser: x'),
    "yaml, a list": (PLAIN, lambda name, s: f"a:\n  {name}:\n  - {s}\n  - {s}\n  user: x"),
    "yaml in json": (
        st.text("abcXYZ012", min_size=8), lambda name, s: json.dumps({"text": f"{name}: |\n  {s}\n  {s}\n"})
    ),
    "name and value": (PLAIN, lambda name, s: f"env:\n- name: {name}\n  value: {s}\n"),
    "name and value in json": (TEXT, lambda name, s: json.dumps([{"name": name, "value": s}])),
    "list in json": (TEXT, lambda name, s: json.dumps({name: ["a", s]})),
    "nested in json": (TEXT, lambda name, s: json.dumps({name: {"value": s, "other": {"b": s}}})),
    "nested in json, indented": (TEXT, lambda name, s: json.dumps({name: {"value": s}}, indent=2)),
    "three quotes": (st.text("abcXYZ012", min_size=8), lambda name, s: f'{name} = """\n{s}\n{s}"""\nuser = 1'),
    "a tuple": (TEXT, lambda name, s: f"[({name!r}, {s!r})]"),
    "odbc with spaces": (
        st.text("abcXYZ012 ", min_size=8).filter(str.strip), lambda name, s: f"Server=x;Password=a{s}z;User=q"
    ),
    "encoded query": (URL_SAFE, lambda name, s: f"to=https%3A%2F%2Fx%3F{name}%3D{s}%26a%3D1"),
    "encoded url": (URL_SAFE, lambda name, s: f"to=https%3A%2F%2Fuser%3A{s}%40host%2Fa"),
    "netrc": (PLAIN, lambda name, s: f"machine a.example login me password {s}"),
    "curl": (PLAIN, lambda name, s: f"curl -u me:{s} https://a.example"),
    "pem, its end": (BASE64, lambda name, s: f"{s}\n{s}\n-----END PRIVATE KEY-----"),
    "token of a kind": (st.text("abcXYZ012", min_size=20), lambda name, s: f"denied to ghp_{s}!"),
    "json": (TEXT, lambda name, s: json.dumps({"a": [1], name: s, "b": {"c": s[:0]}})),
    "json, indented": (TEXT, lambda name, s: json.dumps({"a": [1], name: s}, indent=2)),
    "json in json": (st.text("abcXYZ012 {}:,!", min_size=8), lambda name, s: json.dumps(json.dumps({name: s}))),
    "a dict": (TEXT, lambda name, s: f"{ {name: s, 'b': 1} }"),
    "bytes": (TEXT, lambda name, s: f"{name}={s.encode()!r}"),
    "an assignment": (PLAIN, lambda name, s: f"export {name}={s} and more"),
    "an assignment with spaces": (PLAIN, lambda name, s: f"{name} = {s}"),
    "arguments": (TEXT, lambda name, s: f"Client(url='x', {name}={s!r}, n=1)"),
    "amid a sentence": (PLAIN, lambda name, s: f"the {name}: {s} was refused"),
    "an option": (PLAIN, lambda name, s: f"run --{name} {s} --verbose"),
    "an element": (TEXT.map(lambda s: s.replace("<", "_")), lambda name, s: f"<a><{name}>{s}</{name}></a>"),
    "a query": (TEXT.map(lambda s: quote(s, safe="")), lambda name, s: f"https://host/x?a=1&{name}={s}&b=2"),
    "connection string": (
        BASE64, lambda name, s: f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={s}==;EndpointSuffix=x"
    ),
    "odbc": (PLAIN, lambda name, s: f"Server=tcp:a;Uid=b;Pwd={s};Encrypt=yes"),
    "sas": (BASE64.map(quote), lambda name, s: f"https://a.blob.core.windows.net/c?sv=2024&se=2026&sig={s}%3D"),
    "bearer": (URL_SAFE.filter(lambda s: s[0] not in "-_"), lambda name, s: f"sent 'Bearer {s}' to it"),
    "authorization": (TEXT, lambda name, s: f"> Authorization: Basic {s}\n> Host: x"),
    "authorization in json": (TEXT, lambda name, s: json.dumps({"Authorization": f"SharedKey a:{s}", "x": 1})),
    "cookie": (TEXT, lambda name, s: f"Set-Cookie: session={s}; Path=/"),
    "header": (PLAIN, lambda name, s: f"X-Api-Key: {s}"),
    "basic": (st.sampled_from(["dXNlcjpwYXNzd29yZA==", "OnBhc3N3b3Jk", "YTpiYzEy"]), lambda name, s: f"(Basic {s})"),
    "jwt": (URL_SAFE, lambda name, s: f"got eyJhbGciOi{s}.eyJzdWIi{s}.{s} from it"),
    "jwt without signature": (URL_SAFE, lambda name, s: f"eyJhbGciOi{s}.{s}."),
    "pem": (BASE64, lambda name, s: f"x\n-----BEGIN RSA PRIVATE KEY-----\n{s}\n{s}\n-----END RSA PRIVATE KEY-----\ny"),
    "pem, cut off": (BASE64, lambda name, s: f"-----BEGIN PRIVATE KEY-----\n{s}\n{s[:4]}\n{s}"),
    "pem in json": (
        BASE64, lambda name, s: json.dumps({"k": f"-----BEGIN EC KEY-----\n{s}\n-----END EC KEY-----\n"})
    ),
    "in a sentence": (
        PLAIN.map(lambda s: f"x1{s}"), lambda name, s: f"I think the {name} is {s} for now"
    ),
    "in a longer sentence": (URL_SAFE, lambda name, s: f"{name} of the database is {s}"),
    "auth, a list": (TEXT, lambda name, s: f"auth: ['me', {s!r}]"),
    "mysql": (PLAIN, lambda name, s: f"+ mysql -h db -u root -p{s} plant"),
    "mysqldump, quoted": (
        st.text("abcXYZ 012", min_size=8).filter(str.strip), lambda name, s: f"mysqldump -u root -p'{s}' plant > x"
    ),
    "sshpass": (PLAIN.filter(lambda s: s[0] not in "= "), lambda name, s: f"sshpass -p {s} ssh a.example"),
    "docker login": (
        PLAIN.filter(lambda s: s[0] not in "= "), lambda name, s: f"docker login a.example -u me -p {s}"
    ),
    "auth, a tuple": (TEXT, lambda name, s: f"requests.get(url, auth=('me', {s!r}), timeout=3)"),
    "auth, an object": (TEXT, lambda name, s: f"get(url, auth=HTTPBasicAuth('me', {s!r}))"),
    "auth, in json": (BASE64.map(lambda s: f"x{s}"), lambda name, s: json.dumps({"auths": {"a.b": {"auth": s}}})),
    "auth, of npm": (BASE64.map(lambda s: f"x{s}"), lambda name, s: f"//a.example/:_auth={s}\nemail=x"),
    "auth, in yaml": (BASE64.map(lambda s: f"x{s}"), lambda name, s: f"registry:\n  auth: {s}\n"),
    "code": (URL_SAFE.map(lambda s: f"x{s}"), lambda name, s: f"POST https://a.example/api/f?code={s}&x=1 failed"),
    "key": (URL_SAFE.map(lambda s: f"x{s}"), lambda name, s: f"https://a.example/v1?alt=json&key={s}"),
    "code, encoded": (URL_SAFE.map(lambda s: f"x{s}"), lambda name, s: f"to=https%3A%2F%2Fx%3Fcode%3D{s}%26a%3D1"),
    "signature first": (URL_SAFE, lambda name, s: f"https://a.example/c?sig={s}&se=1"),
    "putty": (
        BASE64,
        lambda name, s: f"PuTTY-User-Key-File-3: ssh-rsa\nPublic-Lines: 1\nAAAA\nPrivate-Lines: 2\n{s}\n{s}\n"
        f"Private-MAC: {'ab' * 20}\nnext",
    ),
    "putty, its end": (BASE64, lambda name, s: f"Private-Lines: 2\n{s}\n{s}\nPrivate-MAC: {'ab' * 20}\nnext"),
    "putty in json": (BASE64, lambda name, s: json.dumps({"k": f"Private-Lines: 2\r\n{s}\r\n{s}\r\nPrivate-MAC: ab"})),
    "url, a slash": (URL_SAFE, lambda name, s: f"https://user:x{s}/{s}@host/simple and more"),
    "url, a space": (URL_SAFE, lambda name, s: f"pull https://user:x{s} {s}@host/simple and more"),
    "url": (URL_SAFE, lambda name, s: f"https://user:{s}@host/simple and http://{s}@host"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60)
@given(st.data(), st.sampled_from(NAMES))
def test_no_secret_of_any_form_survives(form: str, data: st.DataObject, name: str) -> None:
    secrets, write = FORMS[form]
    secret = data.draw(secrets)
    written = write(name, secret)
    masked = without_secrets(written, {})
    assert "***" in masked or form.startswith("url")
    # Neither as it is nor as the form spells it; a secret may look like a part of the form by chance.
    harmless = write(name, "")
    for spelled in {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret)}:
        if spelled not in harmless:
            assert spelled not in masked
    assert without_secrets(masked, {}) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ('{"password": "a\\"b", "user": "c"}', '{"password": "***", "user": "c"}'),
        ("pip: token=abc next words stay", "pip: token=*** next words stay"),
        ("Authorization: Bearer abc\nHost: x", "Authorization: ***\nHost: x"),
        ("a\npassword: b c d\ne", "a\npassword: ***\ne"),
        ("https://me:pw@host/x?sig=abc%2F&se=1 is gone", "https://host/x?sig=*** is gone"),
        ("x -----BEGIN A KEY-----\nq\n-----END A KEY----- y", "x *** y"),
    ],
)
def test_what_stands_around_a_secret_stays(text: str, masked: str) -> None:
    assert without_secrets(text, {}) == masked


ORDINARY = [
    "config_package of press:2: the model needs https://mirror/simple, see edgepack.yaml:12",
    "the token count is 5, max_tokens: 512, tokens=3, tokenizer: bpe",
    "password is missing; the secret was not found; a bearer token is needed; basic information, Basic Authentication",
    "Attempted credentials:\n\tEnvironmentCredential: EnvironmentCredential authentication unavailable",
    "AuthorizationFailed: the client does not have authorization to perform 'read' over '/subscriptions/0'",
    "step: validation_results\nsignature:\n  inputs: '[{\"type\": \"double\"}]'\nkey: value, keys: [a, b]",
    "sha256:0123456789abcdef, design=big, assignment: x, config=y, tokenise: no, key=value",
    "FileNotFoundError: [Errno 2] No such file or directory: '/tmp/secrets/token'",
    "",
    "see http://host:8080/path and mail a@b.example; http://host: refused, ask a@b.example; http://[::1]:80/x a@b",
    "https://host/a:b/c@v1.2 and git+https://host/x.git@main, ssh://host:22, file:///a",
    "mysql -h host -P 3306 -D db --port=3306; mysqld -P 1; ssh -p 2222 host; docker run -p 80:80 image",
    "exit code=1, http://x/y?page=2&code=404, /search?q=key&code=200#top, keycode=5",
    "author: me, authority: x, oauth: on, auth: required, auth=none, authentication=basic, auth_mode: key",
    "the auth (see docs) failed: auth: failed",
    "the password of the user is required, the password of a plant was lost",
    "the password is required, the token was rejected, a secret is missing, the passphrase is too short",
    "Public-Lines: 6\nPrivate thoughts",
    "the token file /var/run/secrets/x1, token 3 of 5, secret v1.2, password must hold 8 characters, tokens utf-8 text",
    "the secret AZURE_CLIENT_SECRET is not set; token base64-encoded; secret plant-1/key; token state_identifier:3",
    "private key x509 PEM, secret sha256 sum, password AADSTS7000215: wrong, token. 2nd attempt, the token wasn't sent",
    "Größe: 3 // see docs, a@b.example",
]  # fmt: skip


@given(
    st.sampled_from(["password", "the Password", "passwd", "secret", "access token", "API key", "Passwort", "pwd"]),
    st.sampled_from(["hunter2", "s3cret", "Tr0ub4dor&3", "p@ssword!x", "geheim1!", "abc123def", "correct+horse"]),
    st.sampled_from(["", " is used", ", then sign in", ".", " 2nd line"]),
)
def test_a_secret_that_a_person_names_in_a_sentence_is_masked(name: str, secret: str, rest: str) -> None:
    text = f"sign in with {name} {secret}{rest}"
    masked = without_secrets(text, {})
    assert secret not in masked
    assert masked.startswith(f"sign in with {name} ***")
    assert without_secrets(masked, {}) == masked


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_untouched(text: str) -> None:
    assert without_secrets(text, {}) == text


@given(
    st.lists(
        st.sampled_from(
            [
                "the",
                "model",
                "press:1",
                "of",
                "run",
                "12",
                "needs",
                "scikit-learn==1.5.2",
                "and",
                "/a/b.c:",
                "it's",
                "3.5",
                "%,",
                '"x"',
                "{y}",
            ]
        )
    )
)
def test_ordinary_words_are_untouched(words: list[str]) -> None:
    assert without_secrets(" ".join(words), {}) == " ".join(words)


@given(
    st.sampled_from(["password", "secret", "access token", "API key", "passphrase", "Passwort"]),
    st.sampled_from(["is", "was", "are"]),
    st.sampled_from(["required", "missing", "not there", "too short", "invalid.", "expired", "wrong,", "in the vault"]),
)
def test_sentences_about_secrets_are_untouched(name: str, verb: str, rest: str) -> None:
    text = f"step 3: the {name} {verb} {rest}"
    assert without_secrets(text, {}) == text


@given(TEXT, st.sampled_from(["MY_TOKEN", "AZURE_CLIENT_SECRET", "pg_password", "STORAGE_SAS", "APIKEY"]))
def test_values_of_variables_are_masked_wherever_they_stand(secret: str, name: str) -> None:
    masked = without_secrets(f"<<{secret}>> <<{quote(secret, safe='')}>>", {name: secret, "OTHER": "model"})
    assert masked == "<<***>> <<***>>"
    assert without_secrets("the model", {"OTHER": "model", name: "mod"}) == "the model"


UNITS = [
    "password",
    "a",
    "-----BEGIN X-----",
    'token="',
    "eyJ",
    "x: ",
    '\\"',
    "-",
    "<secret",
    "Basic aA",
    "//a",
    "'",
    "-u a:",
    "%2F%2F",
    "name: ",
    ";pwd=",
    "a\n",
    " password:\n",
    "login a password ",
    'pwd="""',
    "mysql ",
    "sshpass -p",
    "docker login ",
    "auth=(",
    "auth=",
    "//a:b",
    "//a:b ",
    "password is ",
    "?code=",
    "PuTTY-User-Key-File-2",
    "Private-Lines: 1\nA",
    "Private-Lines: 1",
    "pwd: ['",
]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.long
def test_long_text_takes_no_long_time(unit: str) -> None:
    """Twice the text may take twice the time, not four times: an error's text is whatever somebody's code printed."""

    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        began = time.process_time()
        without_secrets(text, {})
        return time.process_time() - began

    seconds(1000)
    short = min(seconds(10_000) for _ in range(3))
    assert any(seconds(80_000) < 40 * max(short, 0.001) for _ in range(2))

"""What looks like a secret is told from what only resembles one, however deep it lies, and is left out of messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain import plain_text, values

from labkit.errors import NotebookProblem, ParameterProblem
from labkit.record.allowed import shown
from labkit.record.declared import declared
from labkit.record.secret import (
    FORM,
    assigns_secret,
    holds_secret,
    is_secret,
    is_secret_default,
    masked,
    names_secret,
)
from labkit.workbench.notebooks.params import admit, from_command_line, resolve

SECRET = "ghp_0123456789abcdefABCDEF"
PLAIN = "correct horse"  # a secret by its name alone


def around(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Lists and mappings with this and other things in them, in any order."""
    in_list = st.builds(lambda before, it, after: [*before, it, *after], st.lists(values), inner, st.lists(values))
    return in_list | st.builds(
        lambda more, name, it: more | {name: it}, st.dictionaries(plain_text, values), plain_text, inner
    )


secrets = st.recursive(
    st.just(SECRET)
    | st.sampled_from(["api_key", "token", "password", "HF_TOKEN", "x-api-key"]).map(lambda name: {name: PLAIN})
    | st.just({SECRET: 1}),
    around,
    max_leaves=4,
)


@given(secrets)
def test_a_secret_is_found_however_deep_it_lies(value: object):
    assert is_secret("ANYTHING", value)


@pytest.mark.slow
@given(secrets)
def test_a_refused_value_is_not_repeated(value: object):
    with pytest.raises(ParameterProblem) as refused:
        resolve(declared("ANYTHING = None"), {"ANYTHING": value}, "x.ipynb")
    assert SECRET not in str(refused.value) and PLAIN not in str(refused.value)


@pytest.mark.slow
@given(secrets)
def test_a_message_that_shows_a_value_leaves_out_the_secret_in_it(value: object):
    assert SECRET[:16] not in shown(value) and PLAIN not in shown(value)


FORMS = [
    SECRET,
    "sk-0123456789abcdef",
    "sk-proj-0123_456789abcdef-0123",
    "sk-ant-api03-0123456789abcdef",
    "github_pat_0123456789_abcdef",
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-0123456789-abcdef",
    "AIzaSyA-0123456789_abcdefghijklmnopqrstu",
    "glpat-0123456789abcdefghij",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\n",
    "https://ada:lovelace@example.org/data.zip",
    "redis://:lovelace@localhost:6379",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["{}", "Bearer {}", "a={}", "/data/{}/x"])
def test_the_form_of_a_key_is_known_under_any_name_and_inside_of_text(form: str, text: str):
    assert is_secret("NOTE", text.format(form)) and is_secret_default("NOTE", text.format(form))
    assert form not in masked(text.format(form))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKEN_DIM", "128"),
        ("token_dim", 64),
        ("NUM_TOKENS", "50000000000"),
        ("NUM_TOKENS", 50_000_000_000),
        ("MAX_TOKEN", 50_000),
        ("KEY_SIZE", 100_000),
        ("KEYS", "a"),
        ("PRIMARY_KEY", "id"),
        ("SECRET", True),
        ("API_KEY", ""),
        ("API_KEY", None),
        ("API_KEY", "$OPENAI_API_KEY"),
        ("PASSWORD", "/run/secrets/password"),
        ("CREDENTIALS", "~/.aws/credentials"),
        ("PAD_TOKEN", "[PAD]"),
        ("EOS_TOKEN", "</s>"),
        ("MASK_TOKEN", "MASK"),
        ("TOKENIZER", {"pad_token": "PAD", "eos_token": "|", "unk_token": {"content": "?"}, "token_dim": 3}),
        ("COMMIT", "97d170e1550eee4afc0af065b78cda302a97674c"),
        ("SHA256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("RUN", "20260714T101112.123Z-3f9a1c"),
        ("MODEL", "sk-small"),
        ("MODEL", "hf_transformers_cache/models--bert-base-uncased"),
        ("MODEL", "task-specific-adapter-0123456789abcdef"),
        ("DATA", "/scratch/project_465000001/users/ada/imagenet-1k/train/n01440764/n01440764_10026.JPEG"),
        ("DATA", "https://example.org:8080/a@b/x.zip"),
        ("DATA", "s3://bucket/key:1@2"),
        ("DATA", "git+ssh://git@github.com/ada/engine.git"),
        ("DATA", "postgresql://ada:$PASSWORD@host/db"),
    ],
)
def test_what_only_resembles_a_secret_passes(name: str, value: object):
    assert not is_secret(name, value) and not is_secret_default(name, value)
    assert not is_secret("VALUE", [value])


@pytest.mark.parametrize("name", ["TRIGGER_TOKEN", "TOKEN"])
def test_a_short_text_under_the_name_token_may_be_a_default_but_cannot_be_given(name: str):
    assert is_secret(name, "word") and not is_secret_default(name, "word")


@pytest.mark.parametrize(
    "cell",
    [
        f"NOTE: str = {SECRET!r}",
        f"PASSWORD: str = {PLAIN!r}",
        f"PASSWORD: int = {PLAIN!r}",
        f"SETTINGS: dict = {{'api_key': {PLAIN!r}}}",
        f"HOSTS: list[str] = ['a', 'https://ada:{SECRET}@example.org']",
    ],
)
def test_a_notebook_whose_default_looks_like_a_secret_is_refused_with_advice(cell: str):
    with pytest.raises(NotebookProblem, match=r"line 2 of .* looks like a secret.*os\.environ") as refused:
        admit(declared(f"EPOCHS: int = 3\n{cell}"), {"EPOCHS": "x"}, "x.ipynb")
    assert SECRET not in str(refused.value) and PLAIN not in str(refused.value)


CELL = "EPOCHS: int = 3\nMODE: Literal['a', 'b'] = 'a'\nRATE: float = 1.0  # in [0, 1]\nD: dict = {}\nAPI_KEY: str = ''"


@pytest.mark.parametrize(
    "given",
    [
        [SECRET],
        [f"API_KEY: {PLAIN}"],
        [f"{'a' * 60}-{SECRET}"],
        [f"{SECRET}=1"],
        [f"x {SECRET}=1"],
        [f"EPOCHS={SECRET}"],
        [f"EPOCHS={'a' * 60} {SECRET}"],
        [f"EPOCHS=3 # {SECRET}"],
        [f"MODE={SECRET}"],
        [f"RATE={SECRET}", f"RATE={SECRET}"],
        [f"D=[{SECRET}"],
        [f"D={{api_key: {PLAIN}"],
        [f"D=[{{api_key: {PLAIN}}}]"],
        [f"D={{api_key: {PLAIN}, api_key: {PLAIN}}}"],
        [f"D={{1: {PLAIN}, api_key: {PLAIN}}}", f"UNKNOWN={SECRET}"],
        ["D={api_key: !!binary Y29ycmVjdCBob3JzZQ==}"],
        [f"API_KEY={PLAIN}", f"api_key={PLAIN}"],
    ],
)
def test_no_refusal_repeats_what_looks_like_a_secret(given: list[str]):
    with pytest.raises(ParameterProblem) as refused:
        resolve(declared(CELL), from_command_line(given, []), "x.ipynb")
    assert SECRET[:12] not in str(refused.value) and PLAIN not in str(refused.value)


MORE_FORMS = [
    "sk_live_0123456789abcdef",
    "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2",
    "Bearer 0123456789abcdefgh",
]
MORE_FORMS += ["hooks.slack.com/services/T0/B0/x1", "https://x.org/?a=1&password=lovelace"]


@pytest.mark.parametrize("text", [*FORMS, *MORE_FORMS])
def test_a_file_that_holds_a_secret_in_any_line_is_told_from_others(text: str):
    before, after = "import os  # https://example.org/a:b\n" * 50, "\ntask-1 = 2\n"
    assert holds_secret(f"{before}key = '{text}'{after}")
    assert not holds_secret(before + after)


@given(st.text(alphabet="aksE-_:/@\n .", max_size=60), st.sampled_from([*FORMS, *MORE_FORMS]), st.text(max_size=20))
def test_looking_at_lines_with_hints_finds_what_looking_at_all_finds(before: str, form: str, after: str):
    for text in (before + form + after, before, after):
        assert holds_secret(text) == any(FORM.search(line) for line in text.split("\n"))


@pytest.mark.parametrize(
    "path",
    [
        *(".env", ".env.local", "prod.env", "a/.netrc", "~/.pgpass", "kaggle.json", ".ssh/id_ed25519", "client.pem"),
        *("api_key.txt", "key.json", "my-keys.yaml", "secrets.toml", "aws_secret_v2.txt", "password.txt", "hf_token"),
    ],
)
def test_a_file_for_passwords_and_keys_is_known_by_its_name(path: str):
    assert names_secret(path) and names_secret(f"/lab/{path}")


@pytest.mark.parametrize(
    "path",
    [
        *("keypoints.csv", "monkey.png", "secrets/points.csv", "keyboard.npy", "secretary.csv", "environment.yml"),
        *("tokens.txt", "pad_token.txt", "special_tokens_map.json", "tokenizer.json", "points.csv", "envelope.npz"),
    ],
)
def test_a_file_of_data_is_not_taken_for_one_with_a_key(path: str):
    assert not names_secret(path)


@pytest.mark.parametrize("text", ["password: hunter2", "lr: 1\napi_key = 'x'\n", '{"password": "abc", "lr": 1}'])
def test_settings_that_give_a_key_are_known(text: str):
    assert assigns_secret(text)


@pytest.mark.parametrize(
    "text", ["password: $PW\n", "password:\nlr: 1", '{"password": ""}', "secret_key: /run/x", "lr: 1"]
)
def test_settings_that_only_refer_to_a_key_pass(text: str):
    assert not assigns_secret(text)

import shlex

import pytest

from lit_mbldm.zoo.command import shareable_command


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("fit", "fit"),
        ("configs/church.yaml", "configs/church.yaml"),
        ("--config=configs/church.yaml", "--config=configs/church.yaml"),
        ("../configs/church.yaml", "../configs/church.yaml"),
        ("/home/ada/photos", "photos"),
        ("/home/ada/photos/", "photos"),
        ("~/photos", "photos"),
        ("~ada/photos", "photos"),
        ("--data=/home/ada/photos", "--data=photos"),
        ("--data.shards=[/home/ada/a.tar,/home/ada/b.tar]", "--data.shards=[a.tar,b.tar]"),
        ("{'path': '/home/ada/a.tar'}", "{'path': 'a.tar'}"),
        ("file:///home/ada/a.tar", "a.tar"),
        ("--data=file:///home/ada/{000..009}.tar", "--data={000..009}.tar"),
        ("s3://bucket/a.tar", "s3://bucket/a.tar"),
        ("https://ada:secret@host/a.tar?token=secret#x", "https://host/a.tar"),
        ("--data=https://host/a.tar?X-Amz-Signature=secret", "--data=https://host/a.tar"),
        ("[https://u:secret@host/a,https://host/b?k=secret]", "[https://host/a,https://host/b"),
        ("1e-4", "1e-4"),
        ("a/b", "a/b"),
        ("org/model@v1", "org/model@v1"),
    ],
)
def test_a_command_tells_no_secret_and_no_folder_of_this_machine(
    argument: str, expected: str
) -> None:
    words = shlex.split(shareable_command("lightning", ["fit", argument]))
    assert words[:2] == ["lightning", "fit"]
    assert "secret" not in words[2]
    assert "ada" not in words[2]
    assert words[2].startswith(expected)


def test_a_command_can_be_pasted_into_a_shell() -> None:
    argv = ["sample", "a b", "it's", "$HOME", "{000..009}.tar", ""]
    assert shlex.split(shareable_command("lit-mbldm", argv)) == ["lit-mbldm", *argv]


@pytest.mark.parametrize(
    "argv",
    [
        ["--trainer.logger.init_args.api_key=sesame"],
        ["--trainer.logger.init_args.api_key", "sesame"],
        ["--hub_token", "sesame"],
        ["--x", "pipe:curl -H 'Authorization: Bearer sesame'"],
        ["--x", "hf_sesamesesame"],
        ["--data.train", "s3://me:sesame@bucket/codes"],
    ],
)
def test_secrets_are_left_out(argv: list[str]) -> None:
    told = shareable_command("lightning", ["fit", *argv, "--config", "small.yaml"])
    assert "sesame" not in told
    assert told.startswith("lightning fit ")
    assert told.endswith("--config small.yaml")

"""How the ``blobstore`` command is spoken to: its arguments, what it prints, and the code it exits with."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import urljoin

import click

from django_blobstore.client.memory import remember_login
from django_blobstore.client.operations import Client
from django_blobstore.client.outcomes import OnProgress, Outcome, attempt, no_progress
from django_blobstore.client.problems import FAILED, ClientError, ContentDiffers, InvalidAddress, Refused
from django_blobstore.client.put import hash_of
from django_blobstore.client.transport import Transport

INTERRUPTED = 130

# Control characters, and bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Bars(Protocol):
    """What shows how far each object is."""

    def of(self, address: str) -> OnProgress:
        """Return what is told of the object at `address`."""

    def end(self, address: str) -> None:
        """Forget `address`."""


class NoBars:
    """Where nobody looks."""

    def of(self, address: str) -> OnProgress:
        return no_progress

    def end(self, address: str) -> None:
        pass


class Speaker:
    """Says what became of everything: in lines for people or, with `as_json`, one JSON document a line."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, document: dict[str, Any], *lines: str) -> None:
        for line in [json.dumps(document)] if self.as_json else map(_printable, lines):
            click.echo(line)

    @contextmanager
    def bars(self) -> Iterator[Bars]:
        if self.as_json or not sys.stderr.isatty():
            yield NoBars()
            return
        from django_blobstore.client.bars import ShownBars  # to import rich takes as long as a small put

        with ShownBars() as bars:
            yield bars

    def tell(self, outcome: Outcome) -> None:
        line = f"{outcome.how:10} {outcome.address}"
        reason = outcome.reason or str(outcome.error or "").removeprefix(f"{outcome.address}: ")
        if reason and not self.as_json:
            click.echo(_printable(f"{line}: {reason}"), err=True)
        else:
            self.say(outcome.as_json(), line)

    def tell_all(self, outcomes: Iterable[Outcome], bars: Bars, *, summary: bool = False) -> None:
        """Tell `outcomes` as they come, those that are unchanged only in the summary, and exit if any is a failure."""
        counts: Counter[str] = Counter()
        carried = 0
        codes = set()
        for outcome in outcomes:
            bars.end(outcome.address)
            counts[outcome.how] += 1
            carried += outcome.carried
            if outcome.error:
                codes.add(outcome.error.exit_code if isinstance(outcome.error, ClientError) else FAILED)
            if outcome.how != "unchanged" or not summary:
                self.tell(outcome)
        if summary:
            told = ", ".join(f"{count} {how}" for how, count in sorted(counts.items())) or "nothing there"
            self.say({"summary": dict(counts), "carried": carried}, f"{told}; {carried} bytes carried")
        if codes:
            sys.exit(codes.pop() if len(codes) == 1 else FAILED)


class Commands(click.Group):
    """Commands whose errors are told in one line."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ClientError as error:
            _fail(error, error.exit_code)
        except OSError as error:
            _fail(error, FAILED)
        except KeyboardInterrupt:
            click.echo("Stopped. What has been sent is not sent again.", err=True)
            sys.exit(INTERRUPTED)


def _printable(line: str) -> str:
    """Return `line` with escapes for what a terminal obeys or cannot show: names of files may have any of it."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], line)


def _fail(error: Exception, exit_code: int) -> NoReturn:
    speaker = click.get_current_context().find_object(Speaker)
    if speaker and speaker.as_json:
        code = error.code if isinstance(error, Refused) else ""
        click.echo(json.dumps({"how": "failed", "error": str(error), "code": code}))
    else:
        click.echo(_printable(f"blobstore: {error}"), err=True)
    sys.exit(exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document a line.")
@click.option("--jobs", "-j", default=4, show_default=True, type=click.IntRange(1, 64), help="How many files at once.")
@click.pass_context
def blobstore(context: click.Context, as_json: bool, jobs: int) -> None:
    """Put files into a blob store and get them out.

    An ADDRESS is bucket/path, where the bucket is a name, a UUID, "me" or "global". One that ends with a slash means
    all objects below it.

    BLOBSTORE_URL and BLOBSTORE_TOKEN take the place of `blobstore login`.
    """
    context.obj = Speaker(as_json=as_json)
    context.meta["jobs"] = jobs


def _client() -> Client:
    context = click.get_current_context()
    return context.with_resource(Client(jobs=context.meta["jobs"], on_wait=_tell_of_waiting))


def _tell_of_waiting(error: Exception, seconds: float) -> None:
    if sys.stderr.isatty():
        # Not by click, which would write past the bars.
        print(f"{error} Waiting {seconds:.1f} s.", file=sys.stderr)


@blobstore.command()
@click.argument("url")
@click.option("--user", help="Get a token for this user, whose password is asked for.")
@click.option("--token-url", default="token/", show_default=True, help="Where tokens are given, relative to URL.")
@click.pass_obj
def login(speaker: Speaker, url: str, user: str | None, token_url: str) -> None:
    """Remember the REST interface at URL, and a token for it that is asked for or comes on standard input."""
    url = url.rstrip("/") + "/"
    secret = _secret("Password" if user else "Token")
    token = _token(urljoin(url, token_url), user, secret) if user else secret
    transport = Transport(url, token, connections=1)
    transport.request("GET", "buckets/", params={"limit": "1"})
    file = remember_login(url, token)
    speaker.say({"url": url, "file": str(file)}, f"Logged in to {url}; the token is in {file}.")


def _secret(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(name, hide_input=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def _token(url: str, user: str, password: str) -> str:
    try:
        answer = Transport(url, "", connections=1).post("", {"username": user, "password": password})
    except Refused as error:
        if error.status != 400:
            raise
        raise Refused(401, error.code, "The user name or the password is wrong.", facts=error.facts) from error
    return str(answer["token"])


@blobstore.command()
@click.argument("address", default="")
@click.option("--recursive", "-r", is_flag=True, help="List what is in folders, not the folders.")
@click.pass_obj
def ls(speaker: Speaker, address: str, recursive: bool) -> None:
    """List the buckets, or the objects whose paths begin with that of ADDRESS."""
    client = _client()
    if not address:
        for bucket in client.buckets():
            speaker.say(bucket, f"{bucket['uuid']}  {bucket['object_count']:>9}  {bucket['name']}")
        return
    for found in client.objects(address) if recursive else client.folder(address):
        line = f"{'':>14}  {'':20}  {found['prefix']}" if "prefix" in found else _line(found)
        speaker.say(found, line)


def _line(found: dict[str, Any]) -> str:
    return f"{found['length']:>14}  {found['modified_at'][:19]:20}  {found['path']}"


@blobstore.command()
@click.argument("name")
@click.pass_obj
def mb(speaker: Speaker, name: str) -> None:
    """Make a bucket called NAME."""
    bucket = _client().create_bucket(name)
    speaker.say(bucket, f"{bucket['uuid']}  {bucket['name']}")


@blobstore.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("address")
@click.option("--content-type", default="", help="Media type; by default what the path's ending says.")
@click.pass_obj
def put(speaker: Speaker, files: tuple[Path, ...], address: str, content_type: str) -> None:
    """Put FILES at ADDRESS, several below a folder; bytes that the store has are not sent."""
    for directory in filter(Path.is_dir, files):
        way = f"blobstore sync {shlex.quote(str(directory))} {shlex.quote(address)}"
        raise click.UsageError(f"{str(directory)!r} is a directory; this puts the files in it: {way}")
    for name, count in Counter(file.name for file in files).items():
        if count > 1 and _is_folder(address):
            raise click.UsageError(f"{count} files are called {name!r} and would replace each other; put them apart.")
    client = _client()
    with speaker.bars() as bars:
        if len(files) == 1:
            progress = bars.of(address)
            outcomes: Iterator[Outcome] = iter(
                [client.put(files[0], address, content_type=content_type, on_progress=progress)]
            )
        else:
            outcomes = client.put_all(files, address, content_type=content_type, meter=bars.of)
        speaker.tell_all(outcomes, bars)


@blobstore.command()
@click.argument("address")
@click.argument("file", default=".", type=click.Path())
@click.pass_obj
def get(speaker: Speaker, address: str, file: str) -> None:
    """Get the object at ADDRESS, or all below it, into FILE or a directory, and verify its hash."""
    client = _client()
    with speaker.bars() as bars:
        if _is_folder(address):
            outcomes: Iterator[Outcome] = client.get_all(address, file, meter=bars.of)
        else:
            outcomes = iter([client.get(address, file, on_progress=bars.of(address))])
        speaker.tell_all(outcomes, bars)


@blobstore.command()
@click.argument("addresses", nargs=-1, required=True)
@click.option("--recursive", "-r", is_flag=True, help="Remove all objects below addresses that end with a slash.")
@click.pass_obj
def rm(speaker: Speaker, addresses: tuple[str, ...], recursive: bool) -> None:
    """Remove the objects at ADDRESSES."""
    client = _client()
    if not recursive:
        for address in filter(_is_folder, addresses):
            raise InvalidAddress(address, "it names a folder; --recursive removes all below it")
    with speaker.bars() as bars:
        speaker.tell_all(chain.from_iterable(_removed(client, address) for address in addresses), bars)


def _removed(client: Client, address: str) -> Iterator[Outcome]:
    if _is_folder(address):
        return client.remove_all(address)
    return iter([attempt(address, lambda: client.remove(address))])


@blobstore.command()
@click.argument("source")
@click.argument("target")
@click.pass_obj
def cp(speaker: Speaker, source: str, target: str) -> None:
    """Copy the object at SOURCE to TARGET, without its bytes being carried."""
    found = _client().copy(source, target)
    speaker.say(found, _line(found))


@blobstore.command()
@click.argument("source")
@click.argument("target")
@click.pass_obj
def mv(speaker: Speaker, source: str, target: str) -> None:
    """Move the object at SOURCE to TARGET, without its bytes being carried."""
    found = _client().move(source, target)
    speaker.say(found, _line(found))


@blobstore.command()
@click.argument("addresses", nargs=-1, required=True)
@click.pass_obj
def stat(speaker: Speaker, addresses: tuple[str, ...]) -> None:
    """Show what the store knows of the objects at ADDRESSES."""
    client = _client()
    for address in addresses:
        found = client.stat(address)
        speaker.say(found, *(f"{name:16} {value}" for name, value in found.items()))


@blobstore.command()
@click.argument("addresses", nargs=-1, required=True)
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Compare with this file.")
@click.pass_obj
def verify(speaker: Speaker, addresses: tuple[str, ...], file: Path | None) -> None:
    """Read the objects at ADDRESSES, or all below them, and see that their bytes have their SHA-384.

    With --file, see instead that the object has the content of a file; then no byte of it is read.
    """
    client = _client()
    with speaker.bars() as bars:
        speaker.tell_all(chain.from_iterable(_verified(client, address, file, bars) for address in addresses), bars)


def _verified(client: Client, address: str, file: Path | None, bars: Bars) -> Iterator[Outcome]:
    if file:
        yield attempt(address, lambda: _compared(client, address, file, bars))
    elif _is_folder(address):
        yield from client.verify_all(address, meter=bars.of)
    else:
        yield attempt(address, lambda: client.verify(address, on_progress=bars.of(address)))


def _compared(client: Client, address: str, file: Path, bars: Bars) -> Outcome:
    found = client.stat(address)
    with file.open("rb") as stream:
        sha384, _ = hash_of(stream, bars.of(address))
    if found["sha384"] != sha384:
        raise ContentDiffers(address, f"it is not the content of {file}, whose SHA-384 is {sha384}")
    return Outcome(address, "verified", 0, found, file)


@blobstore.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("address")
@click.option("--delete", is_flag=True, help="Remove objects that have no file, if nothing failed.")
@click.option("--dry-run", "-n", is_flag=True, help="Change nothing, and say what would be changed.")
@click.pass_obj
def sync(speaker: Speaker, directory: Path, address: str, delete: bool, dry_run: bool) -> None:
    """Make the objects below ADDRESS those of DIRECTORY; what is there already is not sent."""
    client = _client()
    with speaker.bars() as bars:
        outcomes = client.sync(directory, address, delete=delete, dry_run=dry_run, meter=bars.of)
        speaker.tell_all(outcomes, bars, summary=True)


def _is_folder(address: str) -> bool:
    return "/" not in address or address.endswith("/")

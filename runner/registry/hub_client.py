"""Requests to a hub through huggingface_hub. Imported only when one has to be made."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, errors, get_token, hf_hub_download, hf_hub_url
from huggingface_hub.utils import build_hf_headers, disable_progress_bars, get_session, hf_raise_for_status

from runner.registry import safetensors_header
from runner.registry.hub_place import Kind, cache, endpoint, home_of
from runner.registry.safetensors_header import Header
from runner.registry.source import read_json
from runner.schema.errors import FailureClass, JobError, PlanError
from runner.schema.model import COMMIT

TIMEOUT_S = 20.0  # for one answer at plan time
FIRST_BYTES = 65536  # of the weights: holds the whole header of a wav2vec2-large (about 50 kB), so one request does

disable_progress_bars()  # several processes would draw over each other


class Repository:
    """A repository on the hub at one commit; ``path`` stays None until a snapshot was taken."""

    path: Path | None = None

    def __init__(self, name: str, *, revision: str, kind: Kind = "model") -> None:
        with _explained(name, revision, kind=kind):
            api = HfApi(endpoint=endpoint())
            ask = api.model_info if kind == "model" else api.dataset_info
            info = ask(name, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
        if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
            raise PlanError(f"{endpoint()} named no commit for {kind} {name!r} at {revision!r}; is HF_ENDPOINT a hub?")
        self.name = name
        self.commit: str | None = info.sha
        self.files = {entry.rfilename: entry.size or 0 for entry in info.siblings or ()}
        if revision != info.sha:
            _remember(home_of(name, kind=kind), revision, info.sha)

    def json(self, path: str) -> dict[str, Any]:
        """The JSON object in ``path``, kept in the cache."""
        with _explained(self.name, str(self.commit)):
            return read_json(_fetched(self.name, str(self.commit), path), name=f"{self.name}/{path}")

    def header(self, path: str) -> Header:
        """The checked header of the safetensors file ``path``: a request for its first bytes, not for the file."""
        name, size = f"{self.name}/{path}", self.files[path]
        with _explained(self.name, str(self.commit)):
            first = self._first(path, FIRST_BYTES)
            length = safetensors_header.header_length(first, size=size, name=name)
            if 8 + length > len(first):
                first = self._first(path, 8 + length)
        return safetensors_header.parse(first[8 : 8 + length], size=size, name=name)

    def _first(self, path: str, count: int) -> bytes:
        url = hf_hub_url(self.name, path, revision=self.commit, endpoint=endpoint())
        headers = build_hf_headers() | {"Range": f"bytes=0-{count - 1}", "Accept-Encoding": "identity"}
        got = b""
        # streamed, so that a server which ignores the range does not send the whole file
        with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_S) as response:
            hf_raise_for_status(response)
            for part in response.iter_bytes():
                got += part
                if len(got) >= count:
                    break
        return got[:count]


def download(repo: str, *, commit: str, path: str, kind: Kind = "model") -> None:
    """Put ``path`` of ``repo`` at ``commit`` into the cache; raises JobError."""
    try:
        with _explained(repo, commit, kind=kind):
            _fetched(repo, commit, path, kind=kind)
    except PlanError as error:
        raise JobError(str(error), failure=_failure(error.__cause__)) from error


def _fetched(repo: str, commit: str, path: str, *, kind: Kind = "model") -> Path:
    where = {"repo_type": kind, "cache_dir": cache(), "endpoint": endpoint()}
    return Path(hf_hub_download(repo, path, revision=commit, **where))


def _remember(home: Path, revision: str, commit: str) -> None:
    """Keep what ``revision`` was, in the cache's own layout, for the day without a network."""
    ref = home / "refs" / revision
    if not ref.resolve().is_relative_to(home.resolve()):
        return
    ref.parent.mkdir(parents=True, exist_ok=True)
    temporary = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
    temporary.write_text(commit, encoding="ascii")
    temporary.replace(ref)


@contextmanager
def _explained(repo: str, revision: str, *, kind: Kind = "model") -> Iterator[None]:
    """Turn what huggingface_hub raises into a PlanError of one line."""
    try:
        yield
    # errors.HTTPError is the base of its HTTP client's errors: httpx under huggingface_hub 1, httpx2 under 2
    except (errors.HTTPError, errors.EntryNotFoundError, OSError) as error:
        raise PlanError(_refused(error, repo, revision, kind) or _unreached(error, repo, kind)) from error


def _refused(error: Exception, repo: str, revision: str, kind: Kind) -> str | None:
    """What an answer of the hub means; None when there was none to understand."""
    page = f"{endpoint()}/{repo if kind == 'model' else f'datasets/{repo}'}"
    if isinstance(error, errors.GatedRepoError):
        return f"{kind} {repo!r} is gated: accept its terms at {page}, then set HF_TOKEN to a token of that account"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{kind} {repo!r} has no revision {revision!r}; give a branch, a tag or a full commit of {page}"
    if isinstance(error, errors.RepositoryNotFoundError) or _status(error) in {401, 403}:
        token = "your token may not read it" if get_token() else "it is private and HF_TOKEN is not set"
        return f"{kind} {repo!r} is not on {endpoint()}, or {token}; check owner and name at {page}"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"{kind} {repo!r} at {revision!r} lacks a file that the hub lists; plan again"
    return None


def _unreached(error: Exception, repo: str, kind: Kind) -> str:
    status, what = _status(error), f"for {kind} {repo!r}"
    if status is not None:
        return f"{endpoint()} answered {status} {what}; try again later, or check HF_ENDPOINT"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left in {str(cache())!r} {what}; free some, or set HF_HOME to another disk"
    reason = type(error.__cause__ or error).__name__
    how = "did not answer in time" if "Timeout" in reason else f"cannot be reached ({reason})"
    advice = f"check the network and HF_ENDPOINT, or use a {kind} of the cache with HF_HUB_OFFLINE=1"
    return f"{endpoint()} {how} {what}; {advice}"


def _failure(error: BaseException | None) -> FailureClass:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "DiskFull"
    gone = isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError)
    return "NotFound" if gone or _status(error) in {401, 403, 404} else "Timeout"


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)

"""One request to a server that answers queries, and the remedies of its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from renewal_board.report_hook import hook


class Server:
    """A server at INFLUXDB_URL, which answers queries with text of some content types."""

    def __init__(
        self,
        settings: hook.Settings,
        content_types: tuple[str, ...],
        remedies: Sequence[hook.Remedy],
    ) -> None:
        """`remedies` say what to do about an answer that is no result."""
        self.settings = settings
        self.content_types = content_types
        self.remedies = remedies
        self.requests = hook.load_requests()

    def post(self, path: str, **parameters: Any) -> str:
        """Return the text of an answer; raise a ReportError if there is none, or no result.

        `parameters` are those of requests: `params`, `json` or `data`.
        """
        timeout = self.settings.timeout
        late = hook.ReportError(
            f"no answer from {self.settings.url} within {timeout:g} s: "
            "raise INFLUXDB_TIMEOUT, or check the server's log"
        )
        answer = hook.run_with_deadline(timeout, lambda: self.try_to_post(path, parameters), late)
        if isinstance(answer, hook.ReportError):
            raise answer
        return str(answer)

    def try_to_post(self, path: str, parameters: Mapping[str, Any]) -> str | hook.ReportError:
        """Return the text of an answer, or the error: a thread cannot raise it."""
        try:
            response = self.requests.post(
                self.settings.url + path,
                auth=hook.authorization(self.settings),
                timeout=self.settings.timeout,
                allow_redirects=False,
                **parameters,
            )
            text: str = response.content.decode("utf-8", "replace")
        except (self.requests.RequestException, OSError, ValueError) as error:
            return hook.ReportError(hook.unreachable(self.settings, error))

        content_type = response.headers.get("Content-Type", "")
        if response.status_code == 200 and content_type.startswith(self.content_types):
            return text
        return self.refusal(f"{response.status_code} {hook.error_message(text)}")

    def refusal(self, answer: str) -> hook.ReportError:
        """Return the error for an answer that is no result: status and text, with the remedy."""
        answer = hook.without_secrets(self.settings, answer)
        remedy = hook.remedy_for(answer, self.remedies).format(bucket=self.settings.bucket)
        return hook.ReportError(
            f"{self.settings.url} answered {hook.shortened(answer)}: {remedy}",
        )

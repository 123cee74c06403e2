"""Detector models and alarm models, their versions and analyses: one method per operation."""

import threading
import uuid
from typing import Any

from wheeltapper.detector.analysis import analyse, blocking_errors
from wheeltapper.detector.model import read_alarm_model
from wheeltapper.detector.plan import make_alarm_plan
from wheeltapper_cloud.iotevents_account import (
    Account,
    Call,
    after_number,
    after_token,
    checked_tags,
    cut_page,
    page_size,
    page_token,
)
from wheeltapper_cloud.store import Analysis, Kind, Resource
from wheeltapper_cloud.wire import ServiceError

ANALYSES_KEPT_MS = 24 * 3600 * 1000
_LAST = 2**62
_ERRORS_SHOWN = 10


class _Versions:
    """What detector models and alarm models have in common: versions that replace one another."""

    def __init__(self, account: Account, kind: Kind) -> None:
        self.account = account
        self.kind = kind

    def create(self, name: str, call: Call, most: int) -> Resource:
        """Version "1" of a model, in force."""
        tags = checked_tags(call.request)
        with self.account.lock:
            self.account.must_be_new(self.kind, name)
            if most and self.account.store.count(self.kind) >= most:
                raise ServiceError("LimitExceededException", f"Number of {self.kind}s exceeds the limit {most}")
            body = {member: value for member, value in call.request.items() if member != "tags"}
            return self.account.enact(self.kind, name, body, tags, call)

    def update(self, name: str, call: Call) -> Resource:
        """The next version of a model, in force; the key stays."""
        with self.account.lock:
            found = self.account.resource(self.kind, name)
            most = self.account.settings.limits.versions
            if most and found.version >= most:
                raise ServiceError("InvalidRequestException", f"Number of versions exceeds the limit {most}")
            body = dict(call.request)
            if "key" in found.body:
                body["key"] = found.body["key"]
            return self.account.enact(self.kind, name, body, {}, call)

    def delete(self, name: str, call: Call) -> dict[str, Any]:
        """Nothing of that name is left."""
        with self.account.lock:
            self.account.retire(self.kind, name, call.by)
        return {}

    def page(self, operation: str, call: Call) -> tuple[list[Resource], dict[str, str]]:
        """A page of models."""
        after = after_token(operation, call.request)
        found = self.account.store.page(self.kind, after, page_size(call.request) + 1)
        return cut_page(operation, call.request, found, "name")

    def version_page(self, operation: str, name: str, call: Call) -> tuple[list[Resource], dict[str, str]]:
        """A page of one model's versions, the latest first."""
        self.account.resource(self.kind, name)
        before = after_number(operation, call.request) or _LAST
        found = self.account.store.versions(self.kind, name, before, page_size(call.request) + 1)
        return cut_page(operation, call.request, found, "version")

    def summary(self, found: Resource) -> dict[str, Any]:
        """What lists of models say of one."""
        name, description = f"{self.kind}Name", f"{self.kind}Description"
        summary = {name: found.name, "creationTime": self.account.store.created_ms(self.kind, found.name)}
        return summary | _present(found.body, description)


class DetectorModels:
    """The operations on detector models."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._versions = _Versions(account, "detectorModel")

    def create_detector_model(self, call: Call) -> dict[str, Any]:
        most = self._account.settings.limits.detector_models
        with self._account.lock:
            self._check(call)
            found = self._versions.create(call.request["detectorModelName"], call, most)
        return {"detectorModelConfiguration": self._configuration(found)}

    def update_detector_model(self, call: Call) -> dict[str, Any]:
        name = call.request["detectorModelName"]
        with self._account.lock:
            self._account.resource("detectorModel", name)
            self._check(call)
            found = self._versions.update(name, call)
        return {"detectorModelConfiguration": self._configuration(found)}

    def delete_detector_model(self, call: Call) -> dict[str, Any]:
        return self._versions.delete(call.request["detectorModelName"], call)

    def describe_detector_model(self, call: Call) -> dict[str, Any]:
        version = call.request.get("detectorModelVersion")
        found = self._account.resource("detectorModel", call.request["detectorModelName"], version)
        return {
            "detectorModel": {
                "detectorModelDefinition": found.body["detectorModelDefinition"],
                "detectorModelConfiguration": self._configuration(found),
            }
        }

    def list_detector_models(self, call: Call) -> dict[str, Any]:
        page, token = self._versions.page("ListDetectorModels", call)
        return {"detectorModelSummaries": [self._versions.summary(found) for found in page], **token}

    def list_detector_model_versions(self, call: Call) -> dict[str, Any]:
        name = call.request["detectorModelName"]
        page, token = self._versions.version_page("ListDetectorModelVersions", name, call)
        left_out = ("detectorModelDescription", "key")
        summaries = [
            {member: value for member, value in self._configuration(found).items() if member not in left_out}
            for found in page
        ]
        return {"detectorModelVersionSummaries": summaries, **token}

    def _check(self, call: Call) -> None:
        errors = blocking_errors(call.request["detectorModelDefinition"], self._account.inputs())
        if errors:
            said = [
                f"{error.message} ({', '.join(error.locations)})" if error.locations else error.message
                for error in errors
            ]
            raise ServiceError("InvalidRequestException", " ".join(said[:_ERRORS_SHOWN]))

    def _configuration(self, found: Resource) -> dict[str, Any]:
        return {
            "detectorModelName": found.name,
            "detectorModelVersion": str(found.version),
            **_present(found.body, "detectorModelDescription"),
            "detectorModelArn": self._account.arn("detectorModel", found.name),
            "roleArn": found.body["roleArn"],
            "creationTime": found.created_ms,
            "lastUpdateTime": found.updated_ms,
            "status": self._account.status(found),
            **_present(found.body, "key"),
            "evaluationMethod": found.body.get("evaluationMethod", "BATCH"),
        }


class AlarmModels:
    """The operations on alarm models."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._versions = _Versions(account, "alarmModel")

    def create_alarm_model(self, call: Call) -> dict[str, Any]:
        most = self._account.settings.limits.alarm_models
        with self._account.lock:
            self._check(call)
            return self._outcome(self._versions.create(call.request["alarmModelName"], call, most))

    def update_alarm_model(self, call: Call) -> dict[str, Any]:
        name = call.request["alarmModelName"]
        with self._account.lock:
            self._account.resource("alarmModel", name)
            self._check(call)
            return self._outcome(self._versions.update(name, call))

    def delete_alarm_model(self, call: Call) -> dict[str, Any]:
        return self._versions.delete(call.request["alarmModelName"], call)

    def describe_alarm_model(self, call: Call) -> dict[str, Any]:
        version = call.request.get("alarmModelVersion")
        found = self._account.resource("alarmModel", call.request["alarmModelName"], version)
        return self._outcome(found) | found.body

    def list_alarm_models(self, call: Call) -> dict[str, Any]:
        page, token = self._versions.page("ListAlarmModels", call)
        return {"alarmModelSummaries": [self._versions.summary(found) for found in page], **token}

    def list_alarm_model_versions(self, call: Call) -> dict[str, Any]:
        name = call.request["alarmModelName"]
        page, token = self._versions.version_page("ListAlarmModelVersions", name, call)
        summaries = [
            self._outcome(found) | {"alarmModelName": found.name, "roleArn": found.body["roleArn"]} for found in page
        ]
        return {"alarmModelVersionSummaries": summaries, **token}

    def _check(self, call: Call) -> None:
        """
        Raises:
            DefinitionError: the rule cannot be read, or names an input that does not exist.
        """
        make_alarm_plan(read_alarm_model(call.request), inputs=self._account.inputs())

    def _outcome(self, found: Resource) -> dict[str, Any]:
        return {
            "creationTime": found.created_ms,
            "alarmModelArn": self._account.arn("alarmModel", found.name),
            "alarmModelVersion": str(found.version),
            "lastUpdateTime": found.updated_ms,
            "status": self._account.status(found),
        }


class Analyses:
    """The operations that analyse a definition; a job is done by the time that its id is answered."""

    def __init__(self, account: Account) -> None:
        self._account = account
        most = account.settings.limits.analyses
        self._running = threading.BoundedSemaphore(most) if most else None

    def start_detector_model_analysis(self, call: Call) -> dict[str, Any]:
        if self._running is None:
            return {"analysisId": self._analyse(call)}
        if not self._running.acquire(blocking=False):
            most = self._account.settings.limits.analyses
            raise ServiceError("LimitExceededException", f"Number of running analyses exceeds the limit {most}")
        try:
            return {"analysisId": self._analyse(call)}
        finally:
            self._running.release()

    def describe_detector_model_analysis(self, call: Call) -> dict[str, Any]:
        return {"status": self._found(call).status}

    def get_detector_model_analysis_results(self, call: Call) -> dict[str, Any]:
        operation = "GetDetectorModelAnalysisResults"
        results = self._found(call).results
        size, start = page_size(call.request), after_number(operation, call.request)
        if size < 1:
            raise ServiceError("InvalidRequestException", "maxResults must be at least 1")
        answer: dict[str, Any] = {"analysisResults": results[start : start + size]}
        if start + size < len(results):
            answer["nextToken"] = page_token(operation, str(start + size))
        return answer

    def _analyse(self, call: Call) -> str:
        account, now = self._account, self._account.clock.time_ms()
        findings = analyse(call.request["detectorModelDefinition"], account.inputs())
        results = [finding.result() for finding in findings]
        analysis = Analysis(str(uuid.uuid4()), now, "COMPLETE", results)
        account.store.put_analysis(analysis, forget_before_ms=now - ANALYSES_KEPT_MS)
        return analysis.id

    def _found(self, call: Call) -> Analysis:
        analysis_id = call.request["analysisId"]
        found = self._account.store.analysis(analysis_id)
        if found is None or found.created_ms < self._account.clock.time_ms() - ANALYSES_KEPT_MS:
            raise ServiceError("ResourceNotFoundException", f"Analysis of id: {analysis_id} not found")
        return found


def _present(body: dict[str, Any], member: str) -> dict[str, Any]:
    return {member: body[member]} if member in body else {}

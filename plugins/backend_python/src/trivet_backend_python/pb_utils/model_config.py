"""``pb_utils.ModelConfig``: what ``auto_complete_config`` is given and returns."""

from __future__ import annotations

import json
from typing import Any

_INPUT_PROPERTIES = ("name", "data_type", "dims", "optional")
_OUTPUT_PROPERTIES = ("name", "data_type", "dims")
_REQUIRED = ("name", "data_type", "dims")


class ModelConfig:
    """A model's configuration, which ``auto_complete_config`` may complete and may not contradict."""

    def __init__(self, model_config: str) -> None:
        """``model_config`` is the configuration as Triton's JSON."""
        self._model_config: dict[str, Any] = json.loads(model_config)

    def as_dict(self) -> dict[str, Any]:
        """The configuration as Triton's JSON has it. Change it with the methods of this class only."""
        return self._model_config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Raises :class:`ValueError` where the configuration allows larger batches."""
        configured = self._model_config["max_batch_size"]
        if configured > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {configured}, but in auto-complete-config function for model"
                f" '{self._name}' specified max_batch_size {max_batch_size}"
            )
        self._model_config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Raises :class:`ValueError` where the configuration chose another scheduler."""
        for other in ("sequence_batching", "ensemble_scheduling"):
            if other in self._model_config:
                raise ValueError(
                    f"Configuration specified scheduling_choice as '{other}', but auto-complete-config function for"
                    f" model '{self._name}' tries to set scheduling_choice as 'dynamic_batching'"
                )
        self._model_config.setdefault("dynamic_batching", {})

    def add_input(self, input: dict[str, Any]) -> None:
        """Add an input, or complete one that is there.

        ``input`` has ``name``, ``data_type`` (``"TYPE_FP32"``), ``dims``, and perhaps ``optional``. Raises
        :class:`ValueError` where it has others, lacks one, or says something else than the configuration does.
        """
        self._add("input", input, _INPUT_PROPERTIES)

    def add_output(self, output: dict[str, Any]) -> None:
        """Like :meth:`add_input`, without ``optional``."""
        self._add("output", output, _OUTPUT_PROPERTIES)

    def set_model_transaction_policy(self, transaction_policy_dict: dict[str, Any]) -> None:
        """``{"decoupled": bool}``. Raises :class:`ValueError` for anything else, or where the configuration differs."""
        if any(key != "decoupled" for key in transaction_policy_dict):
            raise ValueError(
                f"model transaction property in auto-complete-config function for model '{self._name}' contains"
                " property other than 'decoupled'."
            )
        policy = self._model_config.setdefault("model_transaction_policy", {})
        if "decoupled" in transaction_policy_dict:
            decoupled = transaction_policy_dict["decoupled"]
            if policy.get("decoupled", decoupled) != decoupled:
                raise ValueError(
                    f"trying to change decoupled property in auto-complete-config for model '{self._name}', which is"
                    f" already set to '{policy['decoupled']}'."
                )
            policy["decoupled"] = decoupled

    @property
    def _name(self) -> str:
        return str(self._model_config["name"])

    def _add(self, kind: str, tensor: dict[str, Any], properties: tuple[str, ...]) -> None:
        where = f"in auto-complete-config function for model '{self._name}'"
        missing = [required for required in _REQUIRED if required not in tensor]
        if missing:
            which = f"{kind} '{tensor['name']}'" if "name" in tensor else kind
            raise ValueError(f"{which} {where} is missing '{missing[0]}' property.")
        name = tensor["name"]
        if any(key not in properties for key in tensor):
            allowed = ", ".join(f"'{key}'" for key in properties[:-1])
            raise ValueError(f"{kind} '{name}' {where} contains property other than {allowed} and '{properties[-1]}'.")
        for configured in self._model_config[kind]:
            if configured["name"] == name:
                self._check(kind, configured, tensor)
                configured.update(tensor)
                return
        self._model_config[kind].append(dict(tensor))

    def _check(self, kind: str, configured: dict[str, Any], tensor: dict[str, Any]) -> None:
        name = tensor["name"]
        if configured["data_type"] not in ("TYPE_INVALID", tensor["data_type"]):
            raise ValueError(
                f"unable to load model '{self._name}', configuration expects datatype {configured['data_type']} for"
                f" {kind} '{name}', model provides {tensor['data_type']}"
            )
        for key in ("dims", "optional"):
            # Empty dims were left out by the author.
            differs = key in tensor and configured.get(key, tensor[key]) != tensor[key]
            if differs and (key != "dims" or configured["dims"]):
                raise ValueError(
                    f"model '{self._name}', tensor '{name}': the model expects {key} {tensor[key]} but the model"
                    f" configuration specifies {key} {configured[key]}"
                )

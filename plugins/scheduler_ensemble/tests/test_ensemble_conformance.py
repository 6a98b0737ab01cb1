from __future__ import annotations

from trivet.testing.conformance import SchedulerConformance


class TestEnsemble(SchedulerConformance):
    scheduler = "ensemble_scheduling"
    simulated = False

    def model_config(self) -> str:
        return """
            platform: "ensemble"
            max_batch_size: 4
            input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
            output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
            ensemble_scheduling {
              step {
                model_name: "double" model_version: -1
                input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }
              }
            }
        """

"""Messages of model_config.proto. Written by tools/generate_protos.py; do not edit."""

# fmt: off
from trivet.config import descriptors

DESCRIPTOR = descriptors.add_file(
    b'\n\x12model_config.proto\x12\tinference"\x96\x01\n\x10ModelRateLimiter\x127\n\tresource'
    b's\x18\x01 \x03(\x0b2$.inference.ModelRateLimiter.Resource\x12\x10\n\x08priority\x18\x02 \x01(\r\x1a'
    b'7\n\x08Resource\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0e\n\x06global\x18\x02 \x01(\x08\x12\r\n\x05count\x18\x03 \x01(\r"\x87\x04\n\x12Mod'
    b'elInstanceGroup\x12\x0c\n\x04name\x18\x01 \x01(\t\x120\n\x04kind\x18\x04 \x01(\x0e2".inference.ModelIns'
    b'tanceGroup.Kind\x12\r\n\x05count\x18\x02 \x01(\x05\x121\n\x0crate_limiter\x18\x06 \x01(\x0b2\x1b.inference'
    b'.ModelRateLimiter\x12\x0c\n\x04gpus\x18\x03 \x03(\x05\x12H\n\x11secondary_devices\x18\x08 \x03(\x0b2-.inf'
    b'erence.ModelInstanceGroup.SecondaryDevice\x12\x0f\n\x07profile\x18\x05 \x03(\t\x12\x0f\n\x07pa'
    b'ssive\x18\x07 \x01(\x08\x12\x13\n\x0bhost_policy\x18\t \x01(\t\x1a\x9c\x01\n\x0fSecondaryDevice\x12O\n\x04kind\x18\x01 \x01'
    b'(\x0e2A.inference.ModelInstanceGroup.SecondaryDevice.SecondaryDevic'
    b'eKind\x12\x11\n\tdevice_id\x18\x02 \x01(\x03"%\n\x13SecondaryDeviceKind\x12\x0e\n\nKIND_NVDLA\x10\x00"'
    b'A\n\x04Kind\x12\r\n\tKIND_AUTO\x10\x00\x12\x0c\n\x08KIND_GPU\x10\x01\x12\x0c\n\x08KIND_CPU\x10\x02\x12\x0e\n\nKIND_MODEL'
    b'\x10\x03"#\n\x12ModelTensorReshape\x12\r\n\x05shape\x18\x01 \x03(\x03"\xd3\x02\n\nModelInput\x12\x0c\n\x04name\x18\x01'
    b' \x01(\t\x12&\n\tdata_type\x18\x02 \x01(\x0e2\x13.inference.DataType\x12,\n\x06format\x18\x03 \x01(\x0e2\x1c.i'
    b'nference.ModelInput.Format\x12\x0c\n\x04dims\x18\x04 \x03(\x03\x12.\n\x07reshape\x18\x05 \x01(\x0b2\x1d.infe'
    b'rence.ModelTensorReshape\x12\x17\n\x0fis_shape_tensor\x18\x06 \x01(\x08\x12\x1a\n\x12allow_ragge'
    b'd_batch\x18\x07 \x01(\x08\x12\x10\n\x08optional\x18\x08 \x01(\x08\x12\x1f\n\x17is_non_linear_format_io\x18\t \x01(\x08'
    b'";\n\x06Format\x12\x0f\n\x0bFORMAT_NONE\x10\x00\x12\x0f\n\x0bFORMAT_NHWC\x10\x01\x12\x0f\n\x0bFORMAT_NCHW\x10\x02"\xd3\x01'
    b'\n\x0bModelOutput\x12\x0c\n\x04name\x18\x01 \x01(\t\x12&\n\tdata_type\x18\x02 \x01(\x0e2\x13.inference.DataT'
    b'ype\x12\x0c\n\x04dims\x18\x03 \x03(\x03\x12.\n\x07reshape\x18\x05 \x01(\x0b2\x1d.inference.ModelTensorReshap'
    b'e\x12\x16\n\x0elabel_filename\x18\x04 \x01(\t\x12\x17\n\x0fis_shape_tensor\x18\x06 \x01(\x08\x12\x1f\n\x17is_non_lin'
    b'ear_format_io\x18\x07 \x01(\x08"\xd9\x02\n\nBatchInput\x12(\n\x04kind\x18\x01 \x01(\x0e2\x1a.inference.Bat'
    b'chInput.Kind\x12\x13\n\x0btarget_name\x18\x02 \x03(\t\x12&\n\tdata_type\x18\x03 \x01(\x0e2\x13.inference'
    b'.DataType\x12\x14\n\x0csource_input\x18\x04 \x03(\t"\xcd\x01\n\x04Kind\x12\x17\n\x13BATCH_ELEMENT_COUNT\x10'
    b'\x00\x12#\n\x1fBATCH_ACCUMULATED_ELEMENT_COUNT\x10\x01\x12-\n)BATCH_ACCUMULATED_ELEM'
    b'ENT_COUNT_WITH_ZERO\x10\x02\x12$\n BATCH_MAX_ELEMENT_COUNT_AS_SHAPE\x10\x03\x12\x14\n\x10B'
    b'ATCH_ITEM_SHAPE\x10\x04\x12\x1c\n\x18BATCH_ITEM_SHAPE_FLATTEN\x10\x05"\x8f\x01\n\x0bBatchOutput\x12'
    b'\x13\n\x0btarget_name\x18\x01 \x03(\t\x12)\n\x04kind\x18\x02 \x01(\x0e2\x1b.inference.BatchOutput.Kind\x12'
    b'\x14\n\x0csource_input\x18\x03 \x03(\t"*\n\x04Kind\x12"\n\x1eBATCH_SCATTER_WITH_INPUT_SHAPE\x10'
    b'\x00"\x90\x02\n\x12ModelVersionPolicy\x126\n\x06latest\x18\x01 \x01(\x0b2$.inference.ModelVersio'
    b'nPolicy.LatestH\x00\x120\n\x03all\x18\x02 \x01(\x0b2!.inference.ModelVersionPolicy.All'
    b'H\x00\x12:\n\x08specific\x18\x03 \x01(\x0b2&.inference.ModelVersionPolicy.SpecificH\x00\x1a\x1e'
    b'\n\x06Latest\x12\x14\n\x0cnum_versions\x18\x01 \x01(\r\x1a\x05\n\x03All\x1a\x1c\n\x08Specific\x12\x10\n\x08versions\x18\x01 '
    b'\x03(\x03B\x0f\n\rpolicy_choice"\xfd\r\n\x17ModelOptimizationPolicy\x127\n\x05graph\x18\x01 \x01(\x0b2'
    b'(.inference.ModelOptimizationPolicy.Graph\x12B\n\x08priority\x18\x02 \x01(\x0e20.in'
    b"ference.ModelOptimizationPolicy.ModelPriority\x125\n\x04cuda\x18\x03 \x01(\x0b2'.in"
    b'ference.ModelOptimizationPolicy.Cuda\x12X\n\x16execution_accelerators\x18\x04'
    b' \x01(\x0b28.inference.ModelOptimizationPolicy.ExecutionAccelerators\x12R'
    b'\n\x13input_pinned_memory\x18\x05 \x01(\x0b25.inference.ModelOptimizationPolicy.'
    b'PinnedMemoryBuffer\x12S\n\x14output_pinned_memory\x18\x06 \x01(\x0b25.inference.Mod'
    b'elOptimizationPolicy.PinnedMemoryBuffer\x12&\n\x1egather_kernel_buffer_'
    b'threshold\x18\x07 \x01(\r\x12\x16\n\x0eeager_batching\x18\x08 \x01(\x08\x1a\x16\n\x05Graph\x12\r\n\x05level\x18\x01 \x01(\x05\x1a'
    b'\xba\x05\n\x04Cuda\x12\x0e\n\x06graphs\x18\x01 \x01(\x08\x12\x18\n\x10busy_wait_events\x18\x02 \x01(\x08\x12E\n\ngraph_spec'
    b'\x18\x03 \x03(\x0b21.inference.ModelOptimizationPolicy.Cuda.GraphSpec\x12\x1a\n\x12out'
    b'put_copy_stream\x18\x04 \x01(\x08\x1a\xa4\x04\n\tGraphSpec\x12\x12\n\nbatch_size\x18\x01 \x01(\x05\x12K\n\x05input'
    b'\x18\x02 \x03(\x0b2<.inference.ModelOptimizationPolicy.Cuda.GraphSpec.InputE'
    b'ntry\x12W\n\x11graph_lower_bound\x18\x03 \x01(\x0b2<.inference.ModelOptimizationPol'
    b'icy.Cuda.GraphSpec.LowerBound\x1a\x14\n\x05Shape\x12\x0b\n\x03dim\x18\x01 \x03(\x03\x1a\xdf\x01\n\nLowerBou'
    b'nd\x12\x12\n\nbatch_size\x18\x01 \x01(\x05\x12V\n\x05input\x18\x02 \x03(\x0b2G.inference.ModelOptimizat'
    b'ionPolicy.Cuda.GraphSpec.LowerBound.InputEntry\x1ae\n\nInputEntry\x12\x0b\n\x03'
    b'key\x18\x01 \x01(\t\x12F\n\x05value\x18\x02 \x01(\x0b27.inference.ModelOptimizationPolicy.Cud'
    b'a.GraphSpec.Shape:\x028\x01\x1ae\n\nInputEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12F\n\x05value\x18\x02 \x01(\x0b2'
    b'7.inference.ModelOptimizationPolicy.Cuda.GraphSpec.Shape:\x028\x01\x1a\xa4\x03\n'
    b'\x15ExecutionAccelerators\x12g\n\x19gpu_execution_accelerator\x18\x01 \x03(\x0b2D.infe'
    b'rence.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator\x12'
    b'g\n\x19cpu_execution_accelerator\x18\x02 \x03(\x0b2D.inference.ModelOptimization'
    b'Policy.ExecutionAccelerators.Accelerator\x1a\xb8\x01\n\x0bAccelerator\x12\x0c\n\x04name'
    b'\x18\x01 \x01(\t\x12h\n\nparameters\x18\x02 \x03(\x0b2T.inference.ModelOptimizationPolicy.E'
    b'xecutionAccelerators.Accelerator.ParametersEntry\x1a1\n\x0fParametersEn'
    b'try\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05value\x18\x02 \x01(\t:\x028\x01\x1a$\n\x12PinnedMemoryBuffer\x12\x0e\n\x06ena'
    b'ble\x18\x01 \x01(\x08"I\n\rModelPriority\x12\x14\n\x10PRIORITY_DEFAULT\x10\x00\x12\x10\n\x0cPRIORITY_MAX'
    b'\x10\x01\x12\x10\n\x0cPRIORITY_MIN\x10\x02"\xdb\x01\n\x10ModelQueuePolicy\x12A\n\x0etimeout_action\x18\x01 \x01('
    b'\x0e2).inference.ModelQueuePolicy.TimeoutAction\x12$\n\x1cdefault_timeout_'
    b'microseconds\x18\x02 \x01(\x04\x12\x1e\n\x16allow_timeout_override\x18\x03 \x01(\x08\x12\x16\n\x0emax_queue_'
    b'size\x18\x04 \x01(\r"&\n\rTimeoutAction\x12\n\n\x06REJECT\x10\x00\x12\t\n\x05DELAY\x10\x01"\x9b\x03\n\x14ModelDyna'
    b'micBatching\x12\x1c\n\x14preferred_batch_size\x18\x01 \x03(\x05\x12$\n\x1cmax_queue_delay_mic'
    b'roseconds\x18\x02 \x01(\x04\x12\x19\n\x11preserve_ordering\x18\x03 \x01(\x08\x12\x17\n\x0fpriority_levels\x18\x04 '
    b'\x01(\x04\x12\x1e\n\x16default_priority_level\x18\x05 \x01(\x04\x129\n\x14default_queue_policy\x18\x06 \x01('
    b'\x0b2\x1b.inference.ModelQueuePolicy\x12W\n\x15priority_queue_policy\x18\x07 \x03(\x0b28.'
    b'inference.ModelDynamicBatching.PriorityQueuePolicyEntry\x1aW\n\x18Prior'
    b'ityQueuePolicyEntry\x12\x0b\n\x03key\x18\x01 \x01(\x04\x12*\n\x05value\x18\x02 \x01(\x0b2\x1b.inference.Mode'
    b'lQueuePolicy:\x028\x01"\xee\n\n\x15ModelSequenceBatching\x12A\n\x06direct\x18\x03 \x01(\x0b2/.inf'
    b'erence.ModelSequenceBatching.StrategyDirectH\x00\x12A\n\x06oldest\x18\x04 \x01(\x0b2/.'
    b'inference.ModelSequenceBatching.StrategyOldestH\x00\x12&\n\x1emax_sequence'
    b'_idle_microseconds\x18\x01 \x01(\x04\x12D\n\rcontrol_input\x18\x02 \x03(\x0b2-.inference.Mode'
    b'lSequenceBatching.ControlInput\x125\n\x05state\x18\x05 \x03(\x0b2&.inference.ModelS'
    b'equenceBatching.State\x12\x1a\n\x12iterative_sequence\x18\x06 \x01(\x08\x1a\xb1\x02\n\x07Control\x12;\n'
    b'\x04kind\x18\x01 \x01(\x0e2-.inference.ModelSequenceBatching.Control.Kind\x12\x18\n\x10in'
    b't32_false_true\x18\x02 \x03(\x05\x12\x17\n\x0ffp32_false_true\x18\x03 \x03(\x02\x12\x17\n\x0fbool_false_true'
    b'\x18\x05 \x03(\x08\x12&\n\tdata_type\x18\x04 \x01(\x0e2\x13.inference.DataType"u\n\x04Kind\x12\x1a\n\x16CONTRO'
    b'L_SEQUENCE_START\x10\x00\x12\x1a\n\x16CONTROL_SEQUENCE_READY\x10\x01\x12\x18\n\x14CONTROL_SEQUEN'
    b'CE_END\x10\x02\x12\x1b\n\x17CONTROL_SEQUENCE_CORRID\x10\x03\x1aW\n\x0cControlInput\x12\x0c\n\x04name\x18\x01 '
    b'\x01(\t\x129\n\x07control\x18\x02 \x03(\x0b2(.inference.ModelSequenceBatching.Control\x1a\x8a'
    b'\x01\n\x0cInitialState\x12&\n\tdata_type\x18\x01 \x01(\x0e2\x13.inference.DataType\x12\x0c\n\x04dims\x18'
    b'\x02 \x03(\x03\x12\x13\n\tzero_data\x18\x03 \x01(\x08H\x00\x12\x13\n\tdata_file\x18\x04 \x01(\tH\x00\x12\x0c\n\x04name\x18\x05 \x01(\tB\x0c\n'
    b'\nstate_data\x1a\xf3\x01\n\x05State\x12\x12\n\ninput_name\x18\x01 \x01(\t\x12\x13\n\x0boutput_name\x18\x02 \x01(\t\x12&'
    b'\n\tdata_type\x18\x03 \x01(\x0e2\x13.inference.DataType\x12\x0c\n\x04dims\x18\x04 \x03(\x03\x12D\n\rinitial_'
    b'state\x18\x05 \x03(\x0b2-.inference.ModelSequenceBatching.InitialState\x12(\n us'
    b'e_same_buffer_for_input_output\x18\x06 \x01(\x08\x12\x1b\n\x13use_growable_memory\x18\x07 \x01('
    b'\x08\x1aX\n\x0eStrategyDirect\x12$\n\x1cmax_queue_delay_microseconds\x18\x01 \x01(\x04\x12 \n\x18min'
    b'imum_slot_utilization\x18\x02 \x01(\x02\x1a\x90\x01\n\x0eStrategyOldest\x12\x1f\n\x17max_candidate_'
    b'sequences\x18\x01 \x01(\x05\x12\x1c\n\x14preferred_batch_size\x18\x02 \x03(\x05\x12$\n\x1cmax_queue_delay'
    b'_microseconds\x18\x03 \x01(\x04\x12\x19\n\x11preserve_ordering\x18\x04 \x01(\x08B\x11\n\x0fstrategy_choic'
    b'e"\x95\x03\n\x0fModelEnsembling\x12-\n\x04step\x18\x01 \x03(\x0b2\x1f.inference.ModelEnsembling.'
    b'Step\x12\x1d\n\x15max_inflight_requests\x18\x02 \x01(\r\x1a\xb3\x02\n\x04Step\x12\x12\n\nmodel_name\x18\x01 \x01(\t'
    b'\x12\x15\n\rmodel_version\x18\x02 \x01(\x03\x12@\n\tinput_map\x18\x03 \x03(\x0b2-.inference.ModelEnse'
    b'mbling.Step.InputMapEntry\x12B\n\noutput_map\x18\x04 \x03(\x0b2..inference.ModelE'
    b'nsembling.Step.OutputMapEntry\x12\x17\n\x0fmodel_namespace\x18\x05 \x01(\t\x1a/\n\rInputM'
    b'apEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05value\x18\x02 \x01(\t:\x028\x01\x1a0\n\x0eOutputMapEntry\x12\x0b\n\x03key'
    b'\x18\x01 \x01(\t\x12\r\n\x05value\x18\x02 \x01(\t:\x028\x01"&\n\x0eModelParameter\x12\x14\n\x0cstring_value\x18\x01 \x01('
    b'\t"\xd9\x02\n\x0bModelWarmup\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x12\n\nbatch_size\x18\x02 \x01(\r\x122\n\x06inputs\x18\x03 '
    b'\x03(\x0b2".inference.ModelWarmup.InputsEntry\x12\r\n\x05count\x18\x04 \x01(\r\x1a\x97\x01\n\x05Input'
    b'\x12&\n\tdata_type\x18\x01 \x01(\x0e2\x13.inference.DataType\x12\x0c\n\x04dims\x18\x02 \x03(\x03\x12\x13\n\tzero_d'
    b'ata\x18\x03 \x01(\x08H\x00\x12\x15\n\x0brandom_data\x18\x04 \x01(\x08H\x00\x12\x19\n\x0finput_data_file\x18\x05 \x01(\tH\x00B\x11\n'
    b'\x0finput_data_type\x1aK\n\x0bInputsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12+\n\x05value\x18\x02 \x01(\x0b2\x1c.in'
    b'ference.ModelWarmup.Input:\x028\x01".\n\x0fModelOperations\x12\x1b\n\x13op_library_f'
    b'ilename\x18\x01 \x03(\t"+\n\x16ModelTransactionPolicy\x12\x11\n\tdecoupled\x18\x01 \x01(\x08"\xe6\x01\n\x15M'
    b'odelRepositoryAgents\x126\n\x06agents\x18\x01 \x03(\x0b2&.inference.ModelRepository'
    b'Agents.Agent\x1a\x94\x01\n\x05Agent\x12\x0c\n\x04name\x18\x01 \x01(\t\x12J\n\nparameters\x18\x02 \x03(\x0b26.infer'
    b'ence.ModelRepositoryAgents.Agent.ParametersEntry\x1a1\n\x0fParametersEn'
    b'try\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05value\x18\x02 \x01(\t:\x028\x01"$\n\x12ModelResponseCache\x12\x0e\n\x06ena'
    b'ble\x18\x01 \x01(\x08"\xe2\x02\n\x0cModelMetrics\x12=\n\x0emetric_control\x18\x01 \x03(\x0b2%.inference.M'
    b'odelMetrics.MetricControl\x1a\x92\x02\n\rMetricControl\x12Q\n\x11metric_identifier'
    b'\x18\x01 \x01(\x0b26.inference.ModelMetrics.MetricControl.MetricIdentifier\x12S'
    b'\n\x11histogram_options\x18\x02 \x01(\x0b26.inference.ModelMetrics.MetricControl'
    b'.HistogramOptionsH\x00\x1a"\n\x10MetricIdentifier\x12\x0e\n\x06family\x18\x01 \x01(\t\x1a#\n\x10Histo'
    b'gramOptions\x12\x0f\n\x07buckets\x18\x01 \x03(\x01B\x10\n\x0emetric_options"\xf3\n\n\x0bModelConfig\x12\x0c'
    b'\n\x04name\x18\x01 \x01(\t\x12\x10\n\x08platform\x18\x02 \x01(\t\x12\x0f\n\x07backend\x18\x11 \x01(\t\x12\x0f\n\x07runtime\x18\x19 \x01(\t'
    b'\x125\n\x0eversion_policy\x18\x03 \x01(\x0b2\x1d.inference.ModelVersionPolicy\x12\x16\n\x0emax_b'
    b'atch_size\x18\x04 \x01(\x05\x12$\n\x05input\x18\x05 \x03(\x0b2\x15.inference.ModelInput\x12&\n\x06output\x18'
    b'\x06 \x03(\x0b2\x16.inference.ModelOutput\x12*\n\x0bbatch_input\x18\x14 \x03(\x0b2\x15.inference.B'
    b'atchInput\x12,\n\x0cbatch_output\x18\x15 \x03(\x0b2\x16.inference.BatchOutput\x128\n\x0coptim'
    b'ization\x18\x0c \x01(\x0b2".inference.ModelOptimizationPolicy\x12;\n\x10dynamic_bat'
    b'ching\x18\x0b \x01(\x0b2\x1f.inference.ModelDynamicBatchingH\x00\x12=\n\x11sequence_batch'
    b'ing\x18\r \x01(\x0b2 .inference.ModelSequenceBatchingH\x00\x129\n\x13ensemble_schedu'
    b'ling\x18\x0f \x01(\x0b2\x1a.inference.ModelEnsemblingH\x00\x125\n\x0einstance_group\x18\x07 \x03(\x0b'
    b'2\x1d.inference.ModelInstanceGroup\x12\x1e\n\x16default_model_filename\x18\x08 \x01(\t\x12'
    b'H\n\x12cc_model_filenames\x18\t \x03(\x0b2,.inference.ModelConfig.CcModelFilen'
    b'amesEntry\x12;\n\x0bmetric_tags\x18\n \x03(\x0b2&.inference.ModelConfig.MetricTag'
    b'sEntry\x12:\n\nparameters\x18\x0e \x03(\x0b2&.inference.ModelConfig.ParametersEnt'
    b'ry\x12,\n\x0cmodel_warmup\x18\x10 \x03(\x0b2\x16.inference.ModelWarmup\x124\n\x10model_operat'
    b'ions\x18\x12 \x01(\x0b2\x1a.inference.ModelOperations\x12C\n\x18model_transaction_poli'
    b'cy\x18\x13 \x01(\x0b2!.inference.ModelTransactionPolicy\x12A\n\x17model_repository_'
    b'agents\x18\x17 \x01(\x0b2 .inference.ModelRepositoryAgents\x125\n\x0eresponse_cache'
    b'\x18\x18 \x01(\x0b2\x1d.inference.ModelResponseCache\x12.\n\rmodel_metrics\x18\x1a \x01(\x0b2\x17.i'
    b'nference.ModelMetrics\x1a7\n\x15CcModelFilenamesEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05v'
    b'alue\x18\x02 \x01(\t:\x028\x01\x1a1\n\x0fMetricTagsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05value\x18\x02 \x01(\t:\x028'
    b'\x01\x1aL\n\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05value\x18\x02 \x01(\x0b2\x19.inference.Mod'
    b'elParameter:\x028\x01B\x13\n\x11scheduling_choice*\xfa\x01\n\x08DataType\x12\x10\n\x0cTYPE_INVALI'
    b'D\x10\x00\x12\r\n\tTYPE_BOOL\x10\x01\x12\x0e\n\nTYPE_UINT8\x10\x02\x12\x0f\n\x0bTYPE_UINT16\x10\x03\x12\x0f\n\x0bTYPE_UINT'
    b'32\x10\x04\x12\x0f\n\x0bTYPE_UINT64\x10\x05\x12\r\n\tTYPE_INT8\x10\x06\x12\x0e\n\nTYPE_INT16\x10\x07\x12\x0e\n\nTYPE_INT'
    b'32\x10\x08\x12\x0e\n\nTYPE_INT64\x10\t\x12\r\n\tTYPE_FP16\x10\n\x12\r\n\tTYPE_FP32\x10\x0b\x12\r\n\tTYPE_FP64\x10'
    b'\x0c\x12\x0f\n\x0bTYPE_STRING\x10\r\x12\r\n\tTYPE_BF16\x10\x0eb\x06proto3'
)

DataType = descriptors.enum_type("inference.DataType")
TYPE_INVALID = 0
TYPE_BOOL = 1
TYPE_UINT8 = 2
TYPE_UINT16 = 3
TYPE_UINT32 = 4
TYPE_UINT64 = 5
TYPE_INT8 = 6
TYPE_INT16 = 7
TYPE_INT32 = 8
TYPE_INT64 = 9
TYPE_FP16 = 10
TYPE_FP32 = 11
TYPE_FP64 = 12
TYPE_STRING = 13
TYPE_BF16 = 14
ModelRateLimiter = descriptors.message_class("inference.ModelRateLimiter", __name__)
ModelInstanceGroup = descriptors.message_class("inference.ModelInstanceGroup", __name__)
ModelTensorReshape = descriptors.message_class("inference.ModelTensorReshape", __name__)
ModelInput = descriptors.message_class("inference.ModelInput", __name__)
ModelOutput = descriptors.message_class("inference.ModelOutput", __name__)
BatchInput = descriptors.message_class("inference.BatchInput", __name__)
BatchOutput = descriptors.message_class("inference.BatchOutput", __name__)
ModelVersionPolicy = descriptors.message_class("inference.ModelVersionPolicy", __name__)
ModelOptimizationPolicy = descriptors.message_class("inference.ModelOptimizationPolicy", __name__)
ModelQueuePolicy = descriptors.message_class("inference.ModelQueuePolicy", __name__)
ModelDynamicBatching = descriptors.message_class("inference.ModelDynamicBatching", __name__)
ModelSequenceBatching = descriptors.message_class("inference.ModelSequenceBatching", __name__)
ModelEnsembling = descriptors.message_class("inference.ModelEnsembling", __name__)
ModelParameter = descriptors.message_class("inference.ModelParameter", __name__)
ModelWarmup = descriptors.message_class("inference.ModelWarmup", __name__)
ModelOperations = descriptors.message_class("inference.ModelOperations", __name__)
ModelTransactionPolicy = descriptors.message_class("inference.ModelTransactionPolicy", __name__)
ModelRepositoryAgents = descriptors.message_class("inference.ModelRepositoryAgents", __name__)
ModelResponseCache = descriptors.message_class("inference.ModelResponseCache", __name__)
ModelMetrics = descriptors.message_class("inference.ModelMetrics", __name__)
ModelConfig = descriptors.message_class("inference.ModelConfig", __name__)

"""Messages of grpc_service.proto. Written by tools/generate_protos.py; do not edit."""

# fmt: off
from trivet.config import model_config_pb2  # noqa: F401  (must be in the pool before this file)
from trivet.config import descriptors

DESCRIPTOR = descriptors.add_file(
    b'\n\x12grpc_service.proto\x12\tinference\x1a\x12model_config.proto"\x13\n\x11ServerLiv'
    b'eRequest""\n\x12ServerLiveResponse\x12\x0c\n\x04live\x18\x01 \x01(\x08"\x14\n\x12ServerReadyReque'
    b'st"$\n\x13ServerReadyResponse\x12\r\n\x05ready\x18\x01 \x01(\x08"2\n\x11ModelReadyRequest\x12\x0c\n'
    b'\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18\x02 \x01(\t"#\n\x12ModelReadyResponse\x12\r\n\x05ready\x18\x01 \x01('
    b'\x08"\x17\n\x15ServerMetadataRequest"K\n\x16ServerMetadataResponse\x12\x0c\n\x04name\x18\x01 \x01'
    b'(\t\x12\x0f\n\x07version\x18\x02 \x01(\t\x12\x12\n\nextensions\x18\x03 \x03(\t"5\n\x14ModelMetadataRequest\x12'
    b'\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18\x02 \x01(\t"\x8d\x02\n\x15ModelMetadataResponse\x12\x0c\n\x04name'
    b'\x18\x01 \x01(\t\x12\x10\n\x08versions\x18\x02 \x03(\t\x12\x10\n\x08platform\x18\x03 \x01(\t\x12?\n\x06inputs\x18\x04 \x03(\x0b2/.inf'
    b'erence.ModelMetadataResponse.TensorMetadata\x12@\n\x07outputs\x18\x05 \x03(\x0b2/.i'
    b'nference.ModelMetadataResponse.TensorMetadata\x1a?\n\x0eTensorMetadata\x12'
    b'\x0c\n\x04name\x18\x01 \x01(\t\x12\x10\n\x08datatype\x18\x02 \x01(\t\x12\r\n\x05shape\x18\x03 \x03(\x03"\x99\x01\n\x0eInferParamete'
    b'r\x12\x14\n\nbool_param\x18\x01 \x01(\x08H\x00\x12\x15\n\x0bint64_param\x18\x02 \x01(\x03H\x00\x12\x16\n\x0cstring_param\x18\x03'
    b' \x01(\tH\x00\x12\x16\n\x0cdouble_param\x18\x04 \x01(\x01H\x00\x12\x16\n\x0cuint64_param\x18\x05 \x01(\x04H\x00B\x12\n\x10parame'
    b'ter_choice"\xd0\x01\n\x13InferTensorContents\x12\x15\n\rbool_contents\x18\x01 \x03(\x08\x12\x14\n\x0cint'
    b'_contents\x18\x02 \x03(\x05\x12\x16\n\x0eint64_contents\x18\x03 \x03(\x03\x12\x15\n\ruint_contents\x18\x04 \x03(\r\x12\x17'
    b'\n\x0fuint64_contents\x18\x05 \x03(\x04\x12\x15\n\rfp32_contents\x18\x06 \x03(\x02\x12\x15\n\rfp64_contents\x18'
    b'\x07 \x03(\x01\x12\x16\n\x0ebytes_contents\x18\x08 \x03(\x0c"\xee\x06\n\x11ModelInferRequest\x12\x12\n\nmodel_nam'
    b'e\x18\x01 \x01(\t\x12\x15\n\rmodel_version\x18\x02 \x01(\t\x12\n\n\x02id\x18\x03 \x01(\t\x12@\n\nparameters\x18\x04 \x03(\x0b2,'
    b'.inference.ModelInferRequest.ParametersEntry\x12=\n\x06inputs\x18\x05 \x03(\x0b2-.i'
    b'nference.ModelInferRequest.InferInputTensor\x12H\n\x07outputs\x18\x06 \x03(\x0b27.i'
    b'nference.ModelInferRequest.InferRequestedOutputTensor\x12\x1a\n\x12raw_inp'
    b'ut_contents\x18\x07 \x03(\x0c\x1a\x94\x02\n\x10InferInputTensor\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x10\n\x08datatype'
    b'\x18\x02 \x01(\t\x12\r\n\x05shape\x18\x03 \x03(\x03\x12Q\n\nparameters\x18\x04 \x03(\x0b2=.inference.ModelInfer'
    b'Request.InferInputTensor.ParametersEntry\x120\n\x08contents\x18\x05 \x01(\x0b2\x1e.inf'
    b'erence.InferTensorContents\x1aL\n\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05va'
    b'lue\x18\x02 \x01(\x0b2\x19.inference.InferParameter:\x028\x01\x1a\xd5\x01\n\x1aInferRequestedOutpu'
    b'tTensor\x12\x0c\n\x04name\x18\x01 \x01(\t\x12[\n\nparameters\x18\x02 \x03(\x0b2G.inference.ModelInfer'
    b'Request.InferRequestedOutputTensor.ParametersEntry\x1aL\n\x0fParameters'
    b'Entry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParameter:\x028\x01'
    b'\x1aL\n\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05value\x18\x02 \x01(\x0b2\x19.inference.Infe'
    b'rParameter:\x028\x01"\xd5\x04\n\x12ModelInferResponse\x12\x12\n\nmodel_name\x18\x01 \x01(\t\x12\x15\n\rmod'
    b'el_version\x18\x02 \x01(\t\x12\n\n\x02id\x18\x03 \x01(\t\x12A\n\nparameters\x18\x04 \x03(\x0b2-.inference.Mod'
    b'elInferResponse.ParametersEntry\x12@\n\x07outputs\x18\x05 \x03(\x0b2/.inference.Mod'
    b'elInferResponse.InferOutputTensor\x12\x1b\n\x13raw_output_contents\x18\x06 \x03(\x0c\x1a\x97'
    b'\x02\n\x11InferOutputTensor\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x10\n\x08datatype\x18\x02 \x01(\t\x12\r\n\x05shape\x18\x03 '
    b'\x03(\x03\x12S\n\nparameters\x18\x04 \x03(\x0b2?.inference.ModelInferResponse.InferOutp'
    b'utTensor.ParametersEntry\x120\n\x08contents\x18\x05 \x01(\x0b2\x1e.inference.InferTens'
    b'orContents\x1aL\n\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05value\x18\x02 \x01(\x0b2\x19.infe'
    b'rence.InferParameter:\x028\x01\x1aL\n\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05valu'
    b'e\x18\x02 \x01(\x0b2\x19.inference.InferParameter:\x028\x01"h\n\x18ModelStreamInferRespon'
    b'se\x12\x15\n\rerror_message\x18\x01 \x01(\t\x125\n\x0einfer_response\x18\x02 \x01(\x0b2\x1d.inference.Mo'
    b'delInferResponse"3\n\x12ModelConfigRequest\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18'
    b'\x02 \x01(\t"=\n\x13ModelConfigResponse\x12&\n\x06config\x18\x01 \x01(\x0b2\x16.inference.ModelCo'
    b'nfig"7\n\x16ModelStatisticsRequest\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18\x02 \x01(\t".\n'
    b'\x11StatisticDuration\x12\r\n\x05count\x18\x01 \x01(\x04\x12\n\n\x02ns\x18\x02 \x01(\x04"\x9c\x03\n\x0fInferStatistic'
    b's\x12-\n\x07success\x18\x01 \x01(\x0b2\x1c.inference.StatisticDuration\x12*\n\x04fail\x18\x02 \x01(\x0b2\x1c'
    b'.inference.StatisticDuration\x12+\n\x05queue\x18\x03 \x01(\x0b2\x1c.inference.Statisti'
    b'cDuration\x123\n\rcompute_input\x18\x04 \x01(\x0b2\x1c.inference.StatisticDuration\x123'
    b'\n\rcompute_infer\x18\x05 \x01(\x0b2\x1c.inference.StatisticDuration\x124\n\x0ecompute_o'
    b'utput\x18\x06 \x01(\x0b2\x1c.inference.StatisticDuration\x12/\n\tcache_hit\x18\x07 \x01(\x0b2\x1c.i'
    b'nference.StatisticDuration\x120\n\ncache_miss\x18\x08 \x01(\x0b2\x1c.inference.Stati'
    b'sticDuration"\xc3\x02\n\x17InferResponseStatistics\x123\n\rcompute_infer\x18\x01 \x01(\x0b2'
    b'\x1c.inference.StatisticDuration\x124\n\x0ecompute_output\x18\x02 \x01(\x0b2\x1c.inferenc'
    b'e.StatisticDuration\x12-\n\x07success\x18\x03 \x01(\x0b2\x1c.inference.StatisticDurati'
    b'on\x12*\n\x04fail\x18\x04 \x01(\x0b2\x1c.inference.StatisticDuration\x124\n\x0eempty_response'
    b'\x18\x05 \x01(\x0b2\x1c.inference.StatisticDuration\x12,\n\x06cancel\x18\x06 \x01(\x0b2\x1c.inference'
    b'.StatisticDuration"\xca\x01\n\x14InferBatchStatistics\x12\x12\n\nbatch_size\x18\x01 \x01(\x04\x12'
    b'3\n\rcompute_input\x18\x02 \x01(\x0b2\x1c.inference.StatisticDuration\x123\n\rcompute_'
    b'infer\x18\x03 \x01(\x0b2\x1c.inference.StatisticDuration\x124\n\x0ecompute_output\x18\x04 \x01('
    b'\x0b2\x1c.inference.StatisticDuration":\n\x0bMemoryUsage\x12\x0c\n\x04type\x18\x01 \x01(\t\x12\n\n\x02'
    b'id\x18\x02 \x01(\x03\x12\x11\n\tbyte_size\x18\x03 \x01(\x04"\xb4\x03\n\x0fModelStatistics\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n'
    b'\x07version\x18\x02 \x01(\t\x12\x16\n\x0elast_inference\x18\x03 \x01(\x04\x12\x17\n\x0finference_count\x18\x04 \x01(\x04\x12'
    b'\x17\n\x0fexecution_count\x18\x05 \x01(\x04\x123\n\x0finference_stats\x18\x06 \x01(\x0b2\x1a.inference.In'
    b'ferStatistics\x124\n\x0bbatch_stats\x18\x07 \x03(\x0b2\x1f.inference.InferBatchStatist'
    b'ics\x12,\n\x0cmemory_usage\x18\x08 \x03(\x0b2\x16.inference.MemoryUsage\x12E\n\x0eresponse_st'
    b'ats\x18\t \x03(\x0b2-.inference.ModelStatistics.ResponseStatsEntry\x1aX\n\x12Resp'
    b'onseStatsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x121\n\x05value\x18\x02 \x01(\x0b2".inference.InferResp'
    b'onseStatistics:\x028\x01"J\n\x17ModelStatisticsResponse\x12/\n\x0bmodel_stats\x18\x01 \x03'
    b'(\x0b2\x1a.inference.ModelStatistics"\x8a\x01\n\x18ModelRepositoryParameter\x12\x14\n\nb'
    b'ool_param\x18\x01 \x01(\x08H\x00\x12\x15\n\x0bint64_param\x18\x02 \x01(\x03H\x00\x12\x16\n\x0cstring_param\x18\x03 \x01(\tH\x00'
    b'\x12\x15\n\x0bbytes_param\x18\x04 \x01(\x0cH\x00B\x12\n\x10parameter_choice"@\n\x16RepositoryIndexRe'
    b'quest\x12\x17\n\x0frepository_name\x18\x01 \x01(\t\x12\r\n\x05ready\x18\x02 \x01(\x08"\xa4\x01\n\x17RepositoryInde'
    b'xResponse\x12=\n\x06models\x18\x01 \x03(\x0b2-.inference.RepositoryIndexResponse.Mo'
    b'delIndex\x1aJ\n\nModelIndex\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18\x02 \x01(\t\x12\r\n\x05state\x18\x03'
    b' \x01(\t\x12\x0e\n\x06reason\x18\x04 \x01(\t"\xec\x01\n\x1aRepositoryModelLoadRequest\x12\x17\n\x0frepositor'
    b'y_name\x18\x01 \x01(\t\x12\x12\n\nmodel_name\x18\x02 \x01(\t\x12I\n\nparameters\x18\x03 \x03(\x0b25.inference'
    b'.RepositoryModelLoadRequest.ParametersEntry\x1aV\n\x0fParametersEntry\x12\x0b'
    b'\n\x03key\x18\x01 \x01(\t\x122\n\x05value\x18\x02 \x01(\x0b2#.inference.ModelRepositoryParameter:'
    b'\x028\x01"\x1d\n\x1bRepositoryModelLoadResponse"\xf0\x01\n\x1cRepositoryModelUnloadRequ'
    b'est\x12\x17\n\x0frepository_name\x18\x01 \x01(\t\x12\x12\n\nmodel_name\x18\x02 \x01(\t\x12K\n\nparameters\x18\x03'
    b' \x03(\x0b27.inference.RepositoryModelUnloadRequest.ParametersEntry\x1aV\n'
    b'\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x122\n\x05value\x18\x02 \x01(\x0b2#.inference.ModelRe'
    b'positoryParameter:\x028\x01"\x1f\n\x1dRepositoryModelUnloadResponse"/\n\x1fSystem'
    b'SharedMemoryStatusRequest\x12\x0c\n\x04name\x18\x01 \x01(\t"\xa5\x02\n SystemSharedMemorySt'
    b'atusResponse\x12I\n\x07regions\x18\x01 \x03(\x0b28.inference.SystemSharedMemoryStat'
    b'usResponse.RegionsEntry\x1aL\n\x0cRegionStatus\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0b\n\x03key\x18\x02 \x01'
    b'(\t\x12\x0e\n\x06offset\x18\x03 \x01(\x04\x12\x11\n\tbyte_size\x18\x04 \x01(\x04\x1ah\n\x0cRegionsEntry\x12\x0b\n\x03key\x18\x01 \x01'
    b'(\t\x12G\n\x05value\x18\x02 \x01(\x0b28.inference.SystemSharedMemoryStatusResponse.R'
    b'egionStatus:\x028\x01"a\n!SystemSharedMemoryRegisterRequest\x12\x0c\n\x04name\x18\x01 \x01'
    b'(\t\x12\x0b\n\x03key\x18\x02 \x01(\t\x12\x0e\n\x06offset\x18\x03 \x01(\x04\x12\x11\n\tbyte_size\x18\x04 \x01(\x04"$\n"SystemShar'
    b'edMemoryRegisterResponse"3\n#SystemSharedMemoryUnregisterRequest\x12'
    b'\x0c\n\x04name\x18\x01 \x01(\t"&\n$SystemSharedMemoryUnregisterResponse"-\n\x1dCudaSha'
    b'redMemoryStatusRequest\x12\x0c\n\x04name\x18\x01 \x01(\t"\x95\x02\n\x1eCudaSharedMemoryStatusR'
    b'esponse\x12G\n\x07regions\x18\x01 \x03(\x0b26.inference.CudaSharedMemoryStatusRespo'
    b'nse.RegionsEntry\x1aB\n\x0cRegionStatus\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x11\n\tdevice_id\x18\x02 \x01('
    b'\x04\x12\x11\n\tbyte_size\x18\x03 \x01(\x04\x1af\n\x0cRegionsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12E\n\x05value\x18\x02 \x01(\x0b'
    b'26.inference.CudaSharedMemoryStatusResponse.RegionStatus:\x028\x01"i\n\x1f'
    b'CudaSharedMemoryRegisterRequest\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x12\n\nraw_handle\x18\x02 \x01('
    b'\x0c\x12\x11\n\tdevice_id\x18\x03 \x01(\x03\x12\x11\n\tbyte_size\x18\x04 \x01(\x04""\n CudaSharedMemoryRegis'
    b'terResponse"1\n!CudaSharedMemoryUnregisterRequest\x12\x0c\n\x04name\x18\x01 \x01(\t"$'
    b'\n"CudaSharedMemoryUnregisterResponse"\xe6\x01\n\x13TraceSettingRequest\x12>\n\x08'
    b'settings\x18\x01 \x03(\x0b2,.inference.TraceSettingRequest.SettingsEntry\x12\x12\n\n'
    b'model_name\x18\x02 \x01(\t\x1a\x1d\n\x0cSettingValue\x12\r\n\x05value\x18\x01 \x03(\t\x1a\\\n\rSettingsEntry'
    b'\x12\x0b\n\x03key\x18\x01 \x01(\t\x12:\n\x05value\x18\x02 \x01(\x0b2+.inference.TraceSettingRequest.Set'
    b'tingValue:\x028\x01"\xd5\x01\n\x14TraceSettingResponse\x12?\n\x08settings\x18\x01 \x03(\x0b2-.infer'
    b'ence.TraceSettingResponse.SettingsEntry\x1a\x1d\n\x0cSettingValue\x12\r\n\x05value'
    b'\x18\x01 \x03(\t\x1a]\n\rSettingsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12;\n\x05value\x18\x02 \x01(\x0b2,.inference.'
    b'TraceSettingResponse.SettingValue:\x028\x01"\x9a\x02\n\x12LogSettingsRequest\x12=\n\x08'
    b'settings\x18\x01 \x03(\x0b2+.inference.LogSettingsRequest.SettingsEntry\x1ah\n\x0cS'
    b'ettingValue\x12\x14\n\nbool_param\x18\x01 \x01(\x08H\x00\x12\x16\n\x0cuint32_param\x18\x02 \x01(\rH\x00\x12\x16\n\x0cstr'
    b'ing_param\x18\x03 \x01(\tH\x00B\x12\n\x10parameter_choice\x1a[\n\rSettingsEntry\x12\x0b\n\x03key\x18\x01 '
    b'\x01(\t\x129\n\x05value\x18\x02 \x01(\x0b2*.inference.LogSettingsRequest.SettingValue:\x02'
    b'8\x01"\x9d\x02\n\x13LogSettingsResponse\x12>\n\x08settings\x18\x01 \x03(\x0b2,.inference.LogSett'
    b'ingsResponse.SettingsEntry\x1ah\n\x0cSettingValue\x12\x14\n\nbool_param\x18\x01 \x01(\x08H\x00'
    b'\x12\x16\n\x0cuint32_param\x18\x02 \x01(\rH\x00\x12\x16\n\x0cstring_param\x18\x03 \x01(\tH\x00B\x12\n\x10parameter_ch'
    b'oice\x1a\\\n\rSettingsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12:\n\x05value\x18\x02 \x01(\x0b2+.inference.Lo'
    b'gSettingsResponse.SettingValue:\x028\x012\xb7\x0f\n\x14GRPCInferenceService\x12K\n\nS'
    b'erverLive\x12\x1c.inference.ServerLiveRequest\x1a\x1d.inference.ServerLiveRe'
    b'sponse"\x00\x12N\n\x0bServerReady\x12\x1d.inference.ServerReadyRequest\x1a\x1e.inferen'
    b'ce.ServerReadyResponse"\x00\x12K\n\nModelReady\x12\x1c.inference.ModelReadyReq'
    b'uest\x1a\x1d.inference.ModelReadyResponse"\x00\x12W\n\x0eServerMetadata\x12 .infere'
    b'nce.ServerMetadataRequest\x1a!.inference.ServerMetadataResponse"\x00\x12T'
    b'\n\rModelMetadata\x12\x1f.inference.ModelMetadataRequest\x1a .inference.Mod'
    b'elMetadataResponse"\x00\x12K\n\nModelInfer\x12\x1c.inference.ModelInferRequest'
    b'\x1a\x1d.inference.ModelInferResponse"\x00\x12[\n\x10ModelStreamInfer\x12\x1c.inferenc'
    b'e.ModelInferRequest\x1a#.inference.ModelStreamInferResponse"\x00(\x010\x01\x12N'
    b'\n\x0bModelConfig\x12\x1d.inference.ModelConfigRequest\x1a\x1e.inference.ModelCo'
    b'nfigResponse"\x00\x12Z\n\x0fModelStatistics\x12!.inference.ModelStatisticsReq'
    b'uest\x1a".inference.ModelStatisticsResponse"\x00\x12Z\n\x0fRepositoryIndex\x12!.'
    b'inference.RepositoryIndexRequest\x1a".inference.RepositoryIndexResp'
    b'onse"\x00\x12f\n\x13RepositoryModelLoad\x12%.inference.RepositoryModelLoadReq'
    b'uest\x1a&.inference.RepositoryModelLoadResponse"\x00\x12l\n\x15RepositoryMode'
    b"lUnload\x12'.inference.RepositoryModelUnloadRequest\x1a(.inference.Rep"
    b'ositoryModelUnloadResponse"\x00\x12u\n\x18SystemSharedMemoryStatus\x12*.infer'
    b'ence.SystemSharedMemoryStatusRequest\x1a+.inference.SystemSharedMem'
    b'oryStatusResponse"\x00\x12{\n\x1aSystemSharedMemoryRegister\x12,.inference.Sy'
    b'stemSharedMemoryRegisterRequest\x1a-.inference.SystemSharedMemoryRe'
    b'gisterResponse"\x00\x12\x81\x01\n\x1cSystemSharedMemoryUnregister\x12..inference.Sy'
    b'stemSharedMemoryUnregisterRequest\x1a/.inference.SystemSharedMemory'
    b'UnregisterResponse"\x00\x12o\n\x16CudaSharedMemoryStatus\x12(.inference.CudaS'
    b'haredMemoryStatusRequest\x1a).inference.CudaSharedMemoryStatusRespo'
    b'nse"\x00\x12u\n\x18CudaSharedMemoryRegister\x12*.inference.CudaSharedMemoryRe'
    b'gisterRequest\x1a+.inference.CudaSharedMemoryRegisterResponse"\x00\x12{\n\x1a'
    b'CudaSharedMemoryUnregister\x12,.inference.CudaSharedMemoryUnregiste'
    b'rRequest\x1a-.inference.CudaSharedMemoryUnregisterResponse"\x00\x12Q\n\x0cTra'
    b'ceSetting\x12\x1e.inference.TraceSettingRequest\x1a\x1f.inference.TraceSetti'
    b'ngResponse"\x00\x12N\n\x0bLogSettings\x12\x1d.inference.LogSettingsRequest\x1a\x1e.inf'
    b'erence.LogSettingsResponse"\x00b\x06proto3'
)

ServerLiveRequest = descriptors.message_class("inference.ServerLiveRequest", __name__)
ServerLiveResponse = descriptors.message_class("inference.ServerLiveResponse", __name__)
ServerReadyRequest = descriptors.message_class("inference.ServerReadyRequest", __name__)
ServerReadyResponse = descriptors.message_class("inference.ServerReadyResponse", __name__)
ModelReadyRequest = descriptors.message_class("inference.ModelReadyRequest", __name__)
ModelReadyResponse = descriptors.message_class("inference.ModelReadyResponse", __name__)
ServerMetadataRequest = descriptors.message_class("inference.ServerMetadataRequest", __name__)
ServerMetadataResponse = descriptors.message_class("inference.ServerMetadataResponse", __name__)
ModelMetadataRequest = descriptors.message_class("inference.ModelMetadataRequest", __name__)
ModelMetadataResponse = descriptors.message_class("inference.ModelMetadataResponse", __name__)
InferParameter = descriptors.message_class("inference.InferParameter", __name__)
InferTensorContents = descriptors.message_class("inference.InferTensorContents", __name__)
ModelInferRequest = descriptors.message_class("inference.ModelInferRequest", __name__)
ModelInferResponse = descriptors.message_class("inference.ModelInferResponse", __name__)
ModelStreamInferResponse = descriptors.message_class("inference.ModelStreamInferResponse", __name__)
ModelConfigRequest = descriptors.message_class("inference.ModelConfigRequest", __name__)
ModelConfigResponse = descriptors.message_class("inference.ModelConfigResponse", __name__)
ModelStatisticsRequest = descriptors.message_class("inference.ModelStatisticsRequest", __name__)
StatisticDuration = descriptors.message_class("inference.StatisticDuration", __name__)
InferStatistics = descriptors.message_class("inference.InferStatistics", __name__)
InferResponseStatistics = descriptors.message_class("inference.InferResponseStatistics", __name__)
InferBatchStatistics = descriptors.message_class("inference.InferBatchStatistics", __name__)
MemoryUsage = descriptors.message_class("inference.MemoryUsage", __name__)
ModelStatistics = descriptors.message_class("inference.ModelStatistics", __name__)
ModelStatisticsResponse = descriptors.message_class("inference.ModelStatisticsResponse", __name__)
ModelRepositoryParameter = descriptors.message_class("inference.ModelRepositoryParameter", __name__)
RepositoryIndexRequest = descriptors.message_class("inference.RepositoryIndexRequest", __name__)
RepositoryIndexResponse = descriptors.message_class("inference.RepositoryIndexResponse", __name__)
RepositoryModelLoadRequest = descriptors.message_class("inference.RepositoryModelLoadRequest", __name__)
RepositoryModelLoadResponse = descriptors.message_class("inference.RepositoryModelLoadResponse", __name__)
RepositoryModelUnloadRequest = descriptors.message_class("inference.RepositoryModelUnloadRequest", __name__)
RepositoryModelUnloadResponse = descriptors.message_class("inference.RepositoryModelUnloadResponse", __name__)
SystemSharedMemoryStatusRequest = descriptors.message_class("inference.SystemSharedMemoryStatusRequest", __name__)
SystemSharedMemoryStatusResponse = descriptors.message_class("inference.SystemSharedMemoryStatusResponse", __name__)
SystemSharedMemoryRegisterRequest = descriptors.message_class("inference.SystemSharedMemoryRegisterRequest", __name__)
SystemSharedMemoryRegisterResponse = descriptors.message_class("inference.SystemSharedMemoryRegisterResponse", __name__)
SystemSharedMemoryUnregisterRequest = descriptors.message_class("inference.SystemSharedMemoryUnregisterRequest", __name__)
SystemSharedMemoryUnregisterResponse = descriptors.message_class("inference.SystemSharedMemoryUnregisterResponse", __name__)
CudaSharedMemoryStatusRequest = descriptors.message_class("inference.CudaSharedMemoryStatusRequest", __name__)
CudaSharedMemoryStatusResponse = descriptors.message_class("inference.CudaSharedMemoryStatusResponse", __name__)
CudaSharedMemoryRegisterRequest = descriptors.message_class("inference.CudaSharedMemoryRegisterRequest", __name__)
CudaSharedMemoryRegisterResponse = descriptors.message_class("inference.CudaSharedMemoryRegisterResponse", __name__)
CudaSharedMemoryUnregisterRequest = descriptors.message_class("inference.CudaSharedMemoryUnregisterRequest", __name__)
CudaSharedMemoryUnregisterResponse = descriptors.message_class("inference.CudaSharedMemoryUnregisterResponse", __name__)
TraceSettingRequest = descriptors.message_class("inference.TraceSettingRequest", __name__)
TraceSettingResponse = descriptors.message_class("inference.TraceSettingResponse", __name__)
LogSettingsRequest = descriptors.message_class("inference.LogSettingsRequest", __name__)
LogSettingsResponse = descriptors.message_class("inference.LogSettingsResponse", __name__)

"""Messages of reflection.proto. Written by tools/generate_protos.py; do not edit."""

# fmt: off
from trivet.config import descriptors

DESCRIPTOR = descriptors.add_file(
    b'\n\x10reflection.proto\x12\x12grpc.reflection.v1"\x85\x02\n\x17ServerReflectionReque'
    b'st\x12\x0c\n\x04host\x18\x01 \x01(\t\x12\x1a\n\x10file_by_filename\x18\x03 \x01(\tH\x00\x12 \n\x16file_containing_'
    b'symbol\x18\x04 \x01(\tH\x00\x12I\n\x19file_containing_extension\x18\x05 \x01(\x0b2$.grpc.reflect'
    b"ion.v1.ExtensionRequestH\x00\x12'\n\x1dall_extension_numbers_of_type\x18\x06 \x01(\t"
    b'H\x00\x12\x17\n\rlist_services\x18\x07 \x01(\tH\x00B\x11\n\x0fmessage_request"E\n\x10ExtensionReque'
    b'st\x12\x17\n\x0fcontaining_type\x18\x01 \x01(\t\x12\x18\n\x10extension_number\x18\x02 \x01(\x05"\xb8\x03\n\x18Server'
    b'ReflectionResponse\x12\x12\n\nvalid_host\x18\x01 \x01(\t\x12E\n\x10original_request\x18\x02 \x01(\x0b'
    b'2+.grpc.reflection.v1.ServerReflectionRequest\x12N\n\x18file_descriptor'
    b'_response\x18\x04 \x01(\x0b2*.grpc.reflection.v1.FileDescriptorResponseH\x00\x12U\n'
    b'\x1eall_extension_numbers_response\x18\x05 \x01(\x0b2+.grpc.reflection.v1.Exten'
    b"sionNumberResponseH\x00\x12I\n\x16list_services_response\x18\x06 \x01(\x0b2'.grpc.refl"
    b'ection.v1.ListServiceResponseH\x00\x12;\n\x0eerror_response\x18\x07 \x01(\x0b2!.grpc.r'
    b'eflection.v1.ErrorResponseH\x00B\x12\n\x10message_response"7\n\x16FileDescript'
    b'orResponse\x12\x1d\n\x15file_descriptor_proto\x18\x01 \x03(\x0c"K\n\x17ExtensionNumberResp'
    b'onse\x12\x16\n\x0ebase_type_name\x18\x01 \x01(\t\x12\x18\n\x10extension_number\x18\x02 \x03(\x05"K\n\x13ListSe'
    b'rviceResponse\x124\n\x07service\x18\x01 \x03(\x0b2#.grpc.reflection.v1.ServiceRespo'
    b'nse"\x1f\n\x0fServiceResponse\x12\x0c\n\x04name\x18\x01 \x01(\t":\n\rErrorResponse\x12\x12\n\nerror_c'
    b'ode\x18\x01 \x01(\x05\x12\x15\n\rerror_message\x18\x02 \x01(\t2\x89\x01\n\x10ServerReflection\x12u\n\x14ServerR'
    b'eflectionInfo\x12+.grpc.reflection.v1.ServerReflectionRequest\x1a,.grp'
    b'c.reflection.v1.ServerReflectionResponse(\x010\x01b\x06proto3'
)

ServerReflectionRequest = descriptors.message_class("grpc.reflection.v1.ServerReflectionRequest", __name__)
ExtensionRequest = descriptors.message_class("grpc.reflection.v1.ExtensionRequest", __name__)
ServerReflectionResponse = descriptors.message_class("grpc.reflection.v1.ServerReflectionResponse", __name__)
FileDescriptorResponse = descriptors.message_class("grpc.reflection.v1.FileDescriptorResponse", __name__)
ExtensionNumberResponse = descriptors.message_class("grpc.reflection.v1.ExtensionNumberResponse", __name__)
ListServiceResponse = descriptors.message_class("grpc.reflection.v1.ListServiceResponse", __name__)
ServiceResponse = descriptors.message_class("grpc.reflection.v1.ServiceResponse", __name__)
ErrorResponse = descriptors.message_class("grpc.reflection.v1.ErrorResponse", __name__)

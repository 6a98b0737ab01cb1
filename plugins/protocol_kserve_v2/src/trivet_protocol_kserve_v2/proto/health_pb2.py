"""Messages of health.proto. Written by tools/generate_protos.py; do not edit."""

# fmt: off
from trivet.config import descriptors

DESCRIPTOR = descriptors.add_file(
    b'\n\x0chealth.proto\x12\x0egrpc.health.v1"%\n\x12HealthCheckRequest\x12\x0f\n\x07service\x18'
    b'\x01 \x01(\t"\xa9\x01\n\x13HealthCheckResponse\x12A\n\x06status\x18\x01 \x01(\x0e21.grpc.health.v1.H'
    b'ealthCheckResponse.ServingStatus"O\n\rServingStatus\x12\x0b\n\x07UNKNOWN\x10\x00\x12\x0b'
    b'\n\x07SERVING\x10\x01\x12\x0f\n\x0bNOT_SERVING\x10\x02\x12\x13\n\x0fSERVICE_UNKNOWN\x10\x032\xae\x01\n\x06Health\x12P\n\x05'
    b'Check\x12".grpc.health.v1.HealthCheckRequest\x1a#.grpc.health.v1.Healt'
    b'hCheckResponse\x12R\n\x05Watch\x12".grpc.health.v1.HealthCheckRequest\x1a#.gr'
    b'pc.health.v1.HealthCheckResponse0\x01b\x06proto3'
)

HealthCheckRequest = descriptors.message_class("grpc.health.v1.HealthCheckRequest", __name__)
HealthCheckResponse = descriptors.message_class("grpc.health.v1.HealthCheckResponse", __name__)

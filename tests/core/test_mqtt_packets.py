"""MQTT 3.1.1 packets, as they are sent and as they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltapper.errors import MessageError
from wheeltapper.transport import mqtt_packets as packets


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=400), st.integers(1, 65_535)), max_size=12),
    st.lists(st.integers(1, 300)),
)
def test_packets_are_found_wherever_the_stream_is_cut(sent: list[tuple[str, bytes, int]], cuts: list[int]) -> None:
    stream = b"".join(packets.publish(topic, payload, number) for topic, payload, number in sent)
    splitter, found, place = packets.Splitter(), [], 0

    for cut in [*cuts, len(stream)]:
        found += splitter.feed(stream[place : place + cut])
        place += cut

    read = [packets.read_publish(kind, body) for kind, body in found]
    assert [(topic, payload, int.from_bytes(number, "big")) for topic, payload, number in read] == sent


def test_a_packet_of_three_megabytes_comes_whole() -> None:
    splitter = packets.Splitter()
    payload = bytes(3_000_000)
    stream = packets.publish("a", payload, 1)

    found = [found for place in range(0, len(stream), 1000) for found in splitter.feed(stream[place : place + 1000])]

    assert packets.read_publish(*found[0])[1] == payload


def test_a_length_of_five_bytes_is_no_mqtt() -> None:
    with pytest.raises(ValueError, match="four bytes"):
        packets.Splitter().feed(b"\x30\xff\xff\xff\xff\x01")


def test_a_message_of_qos_0_has_no_number() -> None:
    assert packets.read_publish(0x30, b"\x00\x01a\x00\x01") == ("a", b"\x00\x01", b"")


def test_a_topic_that_mqtt_cannot_carry_is_refused() -> None:
    with pytest.raises(MessageError, match="65535"):
        packets.publish("a" * 65_536, b"", 1)


def test_user_and_password_are_flagged_and_carried() -> None:
    hello = packets.connect("me", clean=True, keep_alive_s=30, username="ada", password="secret")

    assert hello == b"\x10\x1b\x00\x04MQTT\x04\xc2\x00\x1e\x00\x02me\x00\x03ada\x00\x06secret"

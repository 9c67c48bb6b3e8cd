"""The scenes of Eclipse paho for Python; doc.go says how the runner talks to this script."""

import collections
import errno
import hashlib
import json
import os
import queue
import re
import signal
import socket
import sys
import threading
import time

import paho.mqtt
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCodes
from paho.mqtt.subscribeoptions import SubscribeOptions

QUIET = 0.3  # seconds in which nothing must come where nothing is due
SESSION_SECONDS = 600  # a Session Expiry Interval that is long enough for a scene


class Impossible(Exception):
    """The client or the broker has no means for a scene."""


def differ(what, got, want):
    if got != want:
        raise AssertionError(f"{what} is {got!r:.200}, not {want!r:.200}")


def properties(kind, **values):
    """Makes the properties of a packet; names are paho's."""
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def new_client(client_id, protocol, **options):
    """Makes a client with the callbacks of version 1, which paho 2 still has."""
    if hasattr(mqtt, "CallbackAPIVersion"):
        options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
    return mqtt.Client(client_id=client_id, protocol=protocol, **options)


class Actor:
    """A client with what it has received and been told."""

    def __init__(self, stage, name, keep, lasting):
        self.stage, self.name, self.lasting = stage, name, lasting
        self.inbox, self.acks = queue.Queue(), queue.Queue()
        self.connacks, self.talk = [], []
        self.connected, self.gone, self.reason = threading.Event(), threading.Event(), None
        if stage.v5:
            self.client = new_client(stage.topic(name), mqtt.MQTTv5)
        else:
            self.client = new_client(stage.topic(name), mqtt.MQTTv311, clean_session=not keep)
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = self.on_disconnect
        self.client.on_message = lambda client, data, message: self.inbox.put(message)
        self.client.on_subscribe = lambda client, data, mid, granted, *rest: self.acks.put(granted)
        self.client.on_unsubscribe = lambda client, data, mid, *rest: self.acks.put(mid)
        self.client.on_log = lambda client, data, level, text: self.talk.append(text)
        self.client.reconnect_delay_set(1, 1)

    def connect(self, resume=False, keepalive=60, **more):
        options = {}
        if self.stage.v5:
            first = not resume and mqtt.MQTT_CLEAN_START_FIRST_ONLY  # When paho connects again it takes its Session up.
            options = {"clean_start": first, "properties": properties(PacketTypes.CONNECT, **more)}
        try:
            self.client.connect(self.stage.host, self.stage.port, keepalive, **options)
        except OSError as why:
            if why.errno == errno.EADDRNOTAVAIL:  # paho wakes its loop through a pair of sockets on 127.0.0.1.
                raise RuntimeError(f"{why}: does loopback work here (ip link set lo up)?") from why
            raise
        self.client.loop_start()
        self.connected.wait()
        code, self.present, self.server = self.connacks[0]
        differ("the code of CONNACK", code, 0)

    def on_connect(self, client, data, flags, code, server=None):
        maximum = getattr(server, "ReceiveMaximum", 65535)
        client.max_inflight_messages_set(min(maximum, 20))  # paho does not look at the broker's Receive Maximum.
        self.connacks.append((int(code) if isinstance(code, int) else code.value, flags["session present"], server))
        self.connected.set()

    def on_disconnect(self, client, data, code, server=None):
        self.reason = getattr(code, "value", None)
        if not self.lasting:
            client.disconnect()  # Otherwise its loop would connect again.
        self.gone.set()

    def subscribe(self, topic, qos=1, subscription_id=None, **options):
        if self.stage.v5:
            ids = properties(PacketTypes.SUBSCRIBE, **({"SubscriptionIdentifier": subscription_id} if subscription_id else {}))
            self.client.subscribe(topic, options=SubscribeOptions(qos=qos, **options), properties=ids)
            differ("the Reason Code of SUBACK", self.acks.get()[0].value, qos)
        else:
            self.client.subscribe(topic, qos)
            differ("the return code of SUBACK", self.acks.get()[0], qos)

    def unsubscribe(self, topic):
        self.client.unsubscribe(topic)
        self.acks.get()

    def start(self, topic, payload, qos=1, retain=False, **more):
        """Begins to publish; more are properties."""
        options = {"properties": properties(PacketTypes.PUBLISH, **more)} if more else {}
        return self.client.publish(topic, payload, qos, retain, **options)

    def publish(self, *message, **options):
        self.start(*message, **options).wait_for_publish()

    def publish_all(self, topic, payloads, qos=lambda i: 1, **options):
        started = [self.start(topic, payload, qos(i), **options) for i, payload in enumerate(payloads)]
        for one in started:
            one.wait_for_publish()

    def wants(self, topic, payload, qos=1, retain=False):
        got = self.inbox.get()
        wanted = payload.encode() if isinstance(payload, str) else payload
        differ(f"what {self.name} receives", (got.topic, got.payload, got.qos, bool(got.retain)), (topic, wanted, qos, retain))
        return got

    def silent(self, seconds=QUIET):
        time.sleep(seconds)
        if not self.inbox.empty():
            raise AssertionError(f"{self.name} receives {self.inbox.get().payload[:100]!r}, nothing should come")

    def cut(self):
        """Closes the socket without a word, and waits until a lasting client has connected again."""
        self.gone.clear()
        self.connected.clear()
        self.client.socket().shutdown(socket.SHUT_RDWR)
        self.gone.wait()
        if self.lasting:
            self.connected.wait()

    def close(self, code=None):
        self.lasting = False
        if self.client.is_connected():
            self.client.disconnect(**({"reasoncode": code} if code else {}))
        self.client.loop_stop()


class Stage:
    """What a scene needs; end closes all its clients."""

    def __init__(self, task, ready):
        self.host, self.port, self.prefix, self.version = task["host"], task["port"], task["prefix"], task["version"]
        self.sender, self.ready = task.get("from"), ready
        self.v5 = self.version == "5.0"
        self.actors = []

    def topic(self, rest):
        return f"{self.prefix}/{rest}"

    def enter(self, name, keep=False, resume=False, will=None, lasting=False, **options):
        """Connects a client: keep lets its Session outlive the connection, resume takes that up again."""
        actor = Actor(self, name, keep or resume, lasting)
        self.actors.append(actor)
        if will:
            more = {"properties": properties(PacketTypes.WILLMESSAGE, **will)} if self.v5 else {}
            actor.client.will_set(self.topic("will"), "gone", 1, False, **more)
        if self.v5 and (keep or resume):
            options.setdefault("SessionExpiryInterval", SESSION_SECONDS)
        actor.connect(resume, **options)
        return actor

    def forget(self, name):
        """Ends a kept Session."""
        self.enter(name).close()

    def end(self):
        for actor in self.actors:
            actor.close()


def numbers(n):
    return [str(i) for i in range(n)]


def in_order(qos, n=500):
    def scene(s):
        subscriber, publisher = s.enter("subscriber"), s.enter("publisher")
        subscriber.subscribe(s.topic("t"), qos)
        publisher.publish_all(s.topic("t"), numbers(n), lambda i: qos)
        for i in numbers(n):
            subscriber.wants(s.topic("t"), i, qos)
        subscriber.silent()

    return scene


def large(s):
    subscriber, publisher = s.enter("subscriber"), s.enter("publisher")
    subscriber.subscribe(s.topic("t"), 2)
    for qos in range(3):
        noise = os.urandom(1 << 20)
        publisher.publish(s.topic("t"), noise, qos)
        got = subscriber.inbox.get().payload
        differ(f"the hash at QoS {qos}", hashlib.sha256(got).hexdigest(), hashlib.sha256(noise).hexdigest())


def unicode_topics(s):
    subscriber, publisher = s.enter("subscriber"), s.enter("publisher-ß-東京")
    subscriber.subscribe(s.topic("#"))
    for topic in ["ü/ß", "東京/温度", "Ελλάδα", "😀/🌡", "with space", "e\u0301", "\u200d"]:
        for payload in [b"", b"\0", b"a\0b\0", b"\xff\xfe\x80", "日本".encode(), b"\r\n"]:
            publisher.publish(s.topic(topic), payload)
            subscriber.wants(s.topic(topic), payload)


def wildcards(s):
    topics = ["a", "a/b", "a/b/c", "a//c", "a/", "c/d", "$x"]
    filters = {
        "a": [0], "a/b": [1], "#": [0, 1, 2, 3, 4, 5, 6], "a/#": [0, 1, 2, 3, 4], "+": [0, 6], "a/+": [1, 4], "+/b": [1],
        "a/+/c": [2, 3], "+/+": [1, 4, 5], "a/b/#": [1, 2], "+/b/+": [2], "/+": [], "+/": [4], "$x": [6],
    }  # fmt: skip
    subscribers = {f: s.enter(f"sub {f}") for f in filters}
    for f, subscriber in subscribers.items():
        subscriber.subscribe(s.topic(f))
        subscriber.subscribe(s.topic("end of all"))
    publisher = s.enter("publisher")
    for topic in topics + ["end of all"]:
        publisher.publish(s.topic(topic), topic)
    for f, want in filters.items():
        came = iter(lambda: subscribers[f].inbox.get(), None)
        got = []
        for message in came:
            if message.topic == s.topic("end of all"):
                break
            got.append(topics.index(message.payload.decode()))
        differ(f"what matches {f}", sorted(got), want)
    first = s.enter("first level")  # A topic that begins with $ is not for who begins with a wildcard.
    first.subscribe("+/" + s.topic("t"), 0)
    publisher.publish("$dollar/" + s.topic("t"), "not for +", 0)
    publisher.publish("plain/" + s.topic("t"), "for +", 0)
    first.wants("plain/" + s.topic("t"), "for +", 0)
    first.silent()


def unsubscribe(s):
    subscriber, publisher = s.enter("subscriber"), s.enter("publisher")
    for topic in "ab":
        subscriber.subscribe(s.topic(topic))
    for topic in "ab":
        publisher.publish(s.topic(topic), "before")
        subscriber.wants(s.topic(topic), "before")
    subscriber.unsubscribe(s.topic("a"))
    for topic in "ab":
        publisher.publish(s.topic(topic), "after")
    subscriber.wants(s.topic("b"), "after")
    subscriber.silent()


def retained(s):
    live, publisher, topic = s.enter("live"), s.enter("publisher"), s.topic("t")
    live.subscribe(topic)
    for payload in ["old", "new"]:
        publisher.publish(topic, payload, retain=True)
        live.wants(topic, payload)
    late = s.enter("late")
    late.subscribe(topic)
    late.wants(topic, "new", retain=True)
    publisher.publish(topic, "", retain=True)
    live.wants(topic, "")
    last = s.enter("last")
    last.subscribe(topic)
    publisher.publish(topic, "end")
    last.wants(topic, "end")
    last.silent()


def subscription_options(s):
    publisher, topic = s.enter("publisher"), s.topic("t")
    publisher.publish(topic, "old", retain=True)
    for handling, comes in enumerate([[True, True], [True, False], [False, False]]):
        actor = s.enter(f"handling {handling}")
        for one in comes:
            actor.subscribe(topic, retainHandling=handling)
            if one:
                actor.wants(topic, "old", retain=True)
        actor.silent()
    published, plain = s.enter("as published"), s.enter("not as published")
    published.subscribe(topic, retainAsPublished=True, retainHandling=2)
    plain.subscribe(topic, retainHandling=2)
    publisher.subscribe(topic, noLocal=True, retainHandling=2)
    publisher.publish(topic, "", retain=True)
    published.wants(topic, "", retain=True)
    plain.wants(topic, "")
    publisher.silent()


def shared(s, n=400):
    workers = [s.enter("worker 1"), s.enter("worker 2")]
    for worker in workers:
        worker.subscribe("$share/group/" + s.topic("t"))
    s.enter("publisher").publish_all(s.topic("t"), numbers(n))
    while sum(worker.inbox.qsize() for worker in workers) < n:
        time.sleep(0.01)
    time.sleep(QUIET)
    got = []
    for worker in workers:
        if worker.inbox.empty():
            raise AssertionError(f"{worker.name} has nothing")
        while not worker.inbox.empty():
            got.append(int(worker.inbox.get().payload))
    differ("the messages of both", sorted(got), list(range(n)))


def all_properties(s):
    subscriber = s.enter("subscriber")
    subscriber.subscribe(s.topic("t"), subscription_id=268435455)
    want = {
        "ContentType": "text/plain; charset=utf-8", "ResponseTopic": s.topic("answers/ü"), "CorrelationData": b"\0\xff\1\0",
        "PayloadFormatIndicator": 1, "UserProperty": [("b", "1"), ("a", "2"), ("b", "3"), ("b", "1"), ("ü", "ß")],
    }  # fmt: skip
    s.enter("publisher").publish(s.topic("t"), "ü", MessageExpiryInterval=100, **want)
    got = subscriber.wants(s.topic("t"), "ü").properties
    for name, value in want.items():
        differ(name, getattr(got, name, None), value)
    differ("SubscriptionIdentifier", getattr(got, "SubscriptionIdentifier", None), [268435455])
    if not 90 <= getattr(got, "MessageExpiryInterval", 0) <= 100:
        raise AssertionError(f"the Message Expiry Interval of 100 is {got}")


def expiry(s):
    publisher = s.enter("publisher")
    for topic, seconds in {"long": 100, "brief": 1}.items():
        publisher.publish(s.topic(topic), topic, retain=True, MessageExpiryInterval=seconds)
    time.sleep(2.5)
    subscriber = s.enter("subscriber")
    subscriber.subscribe(s.topic("#"))
    left = getattr(subscriber.wants(s.topic("long"), "long", retain=True).properties, "MessageExpiryInterval", None)
    if left is None or not 60 <= left <= 98:
        raise AssertionError(f"a Message Expiry Interval of 100 is {left} after more than 2 s")
    subscriber.silent()
    publisher.publish(s.topic("long"), "", retain=True)


def request(s, n=20):
    responder, requester = s.enter("responder"), s.enter("requester")
    responder.subscribe(s.topic("requests"))
    requester.subscribe(s.topic("answers"))
    for i in numbers(n):
        requester.publish(s.topic("requests"), i, ResponseTopic=s.topic("answers"), CorrelationData=b"\0" + i.encode() + b"\xff")
    for _ in range(n):
        got = responder.inbox.get()
        responder.publish(got.properties.ResponseTopic, b"answer to " + got.payload, CorrelationData=got.properties.CorrelationData)
    for i in numbers(n):
        got = requester.wants(s.topic("answers"), f"answer to {i}")
        differ("the Correlation Data", got.properties.CorrelationData, b"\0" + i.encode() + b"\xff")


def session(s, n=100):
    s.forget("sleeper")
    first = s.enter("sleeper", keep=True)
    differ("Session Present", first.present, 0)
    first.subscribe(s.topic("t"), 2)
    first.close()
    publisher = s.enter("publisher")
    publisher.publish_all(s.topic("t"), numbers(n), lambda i: 1 + i % 2)
    second = s.enter("sleeper", resume=True)
    differ("Session Present", second.present, 1)
    got = {1: [], 2: []}  # The order is promised for each QoS by itself.
    for _ in range(n):
        message = second.inbox.get()
        got[message.qos].append(message.payload.decode())
    second.silent()
    for qos in got:
        differ(f"the order at QoS {qos}", got[qos], numbers(n)[qos - 1 :: 2])
    second.close()
    third = s.enter("sleeper")
    differ("Session Present", third.present, 0)
    publisher.publish(s.topic("t"), "to nobody")
    third.silent()


def session_expiry(s):
    s.enter("sleeper", SessionExpiryInterval=4).close()
    soon = s.enter("sleeper", resume=True, SessionExpiryInterval=4)
    differ("Session Present", soon.present, 1)
    soon.close()
    time.sleep(7)
    late = s.enter("sleeper", resume=True, SessionExpiryInterval=4)
    differ("Session Present after its Session Expiry Interval", late.present, 0)


def reconnect(s, n=300):
    s.forget("subscriber")
    s.forget("publisher")
    subscriber, publisher = s.enter("subscriber", keep=True, lasting=True), s.enter("publisher", keep=True, lasting=True)
    subscriber.subscribe(s.topic("t"), 2)
    first, amid, rest = numbers(n)[: n // 3], numbers(n)[n // 3 : n // 3 + 20], numbers(n)[n // 3 + 20 :]
    publisher.publish_all(s.topic("t"), first, lambda i: 2)
    started = [publisher.start(s.topic("t"), i, 2) for i in amid]
    publisher.cut()
    for one in started:
        one.wait_for_publish()
    started = [publisher.start(s.topic("t"), i, 2) for i in rest]
    got = []
    while len(got) < n:
        got.append(int(subscriber.inbox.get().payload))
        if len(got) == n * 3 // 4:
            subscriber.cut()
    for one in started:
        one.wait_for_publish()
    subscriber.silent()
    twice = [i for i, times in collections.Counter(got).items() if times > 1]
    differ("what has come twice", twice, [])
    for actor in subscriber, publisher:
        differ("Session Present", [present for _, present, _ in actor.connacks], [0, 1])
        actor.close()
        s.forget(actor.name)
    if s.v5:
        return "sends all that it has at once when it has connected again, beyond the broker’s Receive Maximum: the program must not have more"


def will(s):
    watcher, publisher = s.enter("watcher"), s.enter("publisher")
    watcher.subscribe(s.topic("#"))
    s.enter("dying", will={"WillDelayInterval": 0}).close()
    publisher.publish(s.topic("marker"), "no will before this")
    watcher.wants(s.topic("marker"), "no will before this")
    s.enter("dying", will={"WillDelayInterval": 0}).cut()
    watcher.wants(s.topic("will"), "gone")
    watcher.silent()


def will_delay(s):
    watcher, publisher, delay = s.enter("watcher"), s.enter("publisher"), {"WillDelayInterval": 4}
    watcher.subscribe(s.topic("#"))
    s.enter("dying", keep=True, will=delay).cut()
    back = s.enter("dying", resume=True, will=delay)
    differ("Session Present", back.present, 1)
    watcher.silent(6)
    back.cut()
    publisher.publish(s.topic("marker"), "before the will")
    watcher.wants(s.topic("marker"), "before the will")
    watcher.wants(s.topic("will"), "gone")
    s.forget("dying")


def will_disconnect(s):
    watcher = s.enter("watcher")
    watcher.subscribe(s.topic("will"))
    s.enter("dying", will={"WillDelayInterval": 0}).close(ReasonCodes(PacketTypes.DISCONNECT, identifier=4))
    watcher.wants(s.topic("will"), "gone")
    watcher.silent()


def takeover(s):
    first = s.enter("twin")
    second = s.enter("twin")
    first.gone.wait()
    second.subscribe(s.topic("t"))
    second.publish(s.topic("t"), "mine")
    second.wants(s.topic("t"), "mine")
    if s.v5:
        differ("the Reason Code of DISCONNECT", first.reason, 0x8E)


def keep_alive(s):
    idle = s.enter("idle", keepalive=4)
    idle.subscribe(s.topic("t"))
    time.sleep(10)
    differ("there are answers to PINGREQ", "Received PINGRESP" in idle.talk, True)
    s.enter("publisher").publish(s.topic("t"), "still here")
    idle.wants(s.topic("t"), "still here")
    differ("the number of connections", len(idle.connacks), 1)


def close(s):
    watcher, publisher = s.enter("watcher"), s.enter("publisher")
    watcher.subscribe(s.topic("will"))
    first = s.enter("leaver", will={"WillDelayInterval": 0})
    first.subscribe(s.topic("t"))
    first.close()
    publisher.publish(s.topic("t"), "meanwhile")
    second = s.enter("leaver", resume=True)
    differ("Session Present", second.present, 0)
    second.silent()
    second.close()
    s.forget("leaver")
    watcher.silent()


def alias_out(s):
    subscriber, publisher = s.enter("subscriber"), s.enter("publisher")
    if getattr(publisher.server, "TopicAliasMaximum", 0) < 3:
        raise Impossible("the broker takes no Topic Aliases")
    subscriber.subscribe(s.topic("#"))
    for i in range(60):
        topic, qos = s.topic(f"t{i % 3}"), i % 2
        publisher.publish(topic if i < 3 else "", str(i), qos, TopicAlias=1 + i % 3)
        subscriber.wants(topic, str(i), qos)


def alias_in(s):
    """Resolves Topic Aliases itself: paho leaves that to its user."""
    subscriber, publisher = s.enter("subscriber", TopicAliasMaximum=3), s.enter("publisher")
    subscriber.subscribe(s.topic("#"))
    known, without = {}, 0
    for i in range(60):
        topic = s.topic(f"t{i % 3}")
        publisher.publish(topic, str(i))
        got = subscriber.inbox.get()
        alias = getattr(got.properties, "TopicAlias", None)
        if got.topic:
            known[alias] = got.topic
        without += not got.topic
        differ("the message", (got.topic or known.get(alias), got.payload), (topic, str(i).encode()))
    if not without:
        raise Impossible("the broker sends no Topic Aliases")


def receive_maximum(s, n=100, most=3):
    """Counts in paho's log what it has been given and has not completed. The messages wait for it: those that the broker sends
    first come ahead of any answer to them, however fast each side is."""
    away = s.enter("subscriber", keep=True)
    away.subscribe(s.topic("t"), 2)
    away.close()
    s.enter("publisher").publish_all(s.topic("t"), numbers(n), lambda i: 2)
    subscriber = s.enter("subscriber", resume=True, ReceiveMaximum=most)
    for i in numbers(n):
        subscriber.wants(s.topic("t"), i, 2)
    subscriber.silent()
    flight = top = 0
    for line in subscriber.talk:
        flight += bool(re.match(r"Received PUBLISH \(d0", line)) - line.startswith("Sending PUBCOMP")
        top = max(top, flight)
    differ("the most messages in flight", top, most)
    subscriber.close()
    s.forget("subscriber")


def send_quota(s, n=300):
    subscriber, publisher = s.enter("subscriber"), s.enter("publisher")
    subscriber.subscribe(s.topic("t"), 2)
    for qos in 1, 2:
        publisher.publish_all(s.topic("t"), numbers(n), lambda i: qos)
        for i in numbers(n):
            subscriber.wants(s.topic("t"), i, qos)
    subscriber.silent()
    return "does not look at the broker’s Receive Maximum: the program must set max_inflight_messages, 20 by default"


CROSS_USER = [("b", "1"), ("b", "3"), ("a", "2")]


def cross_properties(s):
    return {"ContentType": "text/plain", "ResponseTopic": s.topic("answers"), "CorrelationData": b"\xff\1\x80", "UserProperty": CROSS_USER}


def keep(s):
    s.enter("keeper").publish(s.topic("kept"), "kept", retain=True)


def forget(s):
    s.enter("keeper").publish(s.topic("kept"), "", retain=True)


def send(s):
    s.enter("sender").publish_all(s.topic("messages"), numbers(100), lambda i: 2, **(cross_properties(s) if s.v5 else {}))


def receive(s):
    receiver = s.enter(f"receiver paho.python {s.version}")
    receiver.subscribe(s.topic("kept"), 2)
    receiver.wants(s.topic("kept"), "kept", retain=True)
    receiver.subscribe(s.topic("messages"), 2)
    s.ready()
    for i in numbers(100):
        got = receiver.wants(s.topic("messages"), i, 2)
        if s.v5:
            for name, value in cross_properties(s).items():
                differ(name, getattr(got.properties, name, None), value if s.sender == "5.0" else None)


SCENES = {
    "qos0": in_order(0), "qos1": in_order(1), "qos2": in_order(2), "large": large, "unicode": unicode_topics, "wildcards": wildcards,
    "unsubscribe": unsubscribe, "retained": retained, "options": subscription_options, "shared": shared, "properties": all_properties,
    "expiry": expiry, "request": request, "session": session, "session-expiry": session_expiry, "reconnect": reconnect, "will": will,
    "will-delay": will_delay, "will-disconnect": will_disconnect, "takeover": takeover, "keepalive": keep_alive, "close": close,
    "alias-out": alias_out, "alias-in": alias_in, "receive-maximum": receive_maximum, "send-quota": send_quota,
    "keep": keep, "forget": forget, "send": send, "receive": receive,
}  # fmt: skip


def say(answer):
    print(json.dumps(answer), flush=True)


def too_long(*_):
    raise TimeoutError("takes longer than its limit")


def play(task):
    """Runs one task within its limit and gives the answer."""
    stage = Stage(task, lambda: say({"ready": True}))
    signal.setitimer(signal.ITIMER_REAL, task["seconds"])
    try:
        remark = SCENES[task["scene"]](stage)
        stage.end()
        return {"ok": True, "why": remark or ""}
    except Impossible as why:
        stage.end()
        return {"none": str(why)}
    except Exception as why:
        return {"ok": False, "why": f"{type(why).__name__}: {why}"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main():
    signal.signal(signal.SIGALRM, too_long)
    say({"version": paho.mqtt.__version__})
    for line in sys.stdin:
        say(play(json.loads(line)))
    os._exit(0)  # Threads of scenes that failed may still wait.


main()

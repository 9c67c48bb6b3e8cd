// The scenes of MQTT.js; doc.go says how the runner talks to this script.
import { createHash, randomBytes } from 'node:crypto'
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import { setTimeout as pause } from 'node:timers/promises'
import { isDeepStrictEqual, inspect } from 'node:util'
import mqtt from 'mqtt'

const quiet = 300 // milliseconds in which nothing must come where nothing is due
const sessionSeconds = 600 // a Session Expiry Interval that is long enough for a scene

function differ(what, got, want) {
  if (isDeepStrictEqual(got, want)) return
  const short = (v) => inspect(v, { breakLength: Infinity, depth: 4 }).slice(0, 200)
  throw new Error(`${what} is ${short(got)}, not ${short(want)}`)
}

class Impossible extends Error {}

// Stage holds what a scene needs, and closes all its clients at the end.
class Stage {
  constructor(task, onReady) {
    Object.assign(this, task, { onReady, actors: [], v5: task.version === '5.0' })
  }

  name(rest) {
    return `${this.prefix}/${rest}`
  }

  // enter connects a client: keep lets its Session outlive the connection, resume takes that up again. watch gets the client before
  // anything comes.
  async enter(id, { keep = false, resume = false, properties = {}, watch = () => {}, ...options } = {}) {
    if (this.v5) {
      if (keep || resume) properties = { sessionExpiryInterval: sessionSeconds, ...properties }
      options.properties = properties
    }
    const client = mqtt.connect({
      host: this.host,
      port: this.port,
      protocolVersion: this.v5 ? 5 : 4,
      clientId: this.name(id),
      clean: this.v5 ? !resume : !(keep || resume),
      reconnectPeriod: 0,
      ...options
    })
    watch(client)
    const actor = new Actor(id, client)
    this.actors.push(actor)
    actor.connack = await new Promise((resolve, reject) => {
      client.once('connect', resolve)
      client.once('close', () => reject(new Error(`${id} does not connect`)))
      client.once('error', reject)
    })
    return actor
  }

  async end() {
    await Promise.all(this.actors.map((actor) => actor.close()))
  }
}

// Actor is a client with the messages that it has received.
class Actor {
  constructor(id, client) {
    this.id = id
    this.client = client
    this.inbox = []
    this.wake = () => {}
    client.on('message', (topic, payload, packet) => {
      this.inbox.push({ topic, payload, packet, qos: packet.qos, retain: packet.retain })
      this.wake()
    })
    client.on('disconnect', (packet) => (this.reason = packet.reasonCode))
    client.on('error', (err) => (this.error = err))
    this.closed = new Promise((resolve) => client.once('close', resolve))
    client.on('close', () => this.wake())
  }

  async subscribe(filter, options = { qos: 1 }) {
    const granted = await this.client.subscribeAsync(filter, options)
    differ('the granted QoS', granted[0].qos, options.qos)
  }

  // publish sends one message and waits for its acknowledgement.
  publish(topic, payload, options = { qos: 1 }) {
    return this.client.publishAsync(topic, payload, options)
  }

  // publishAll sends messages of [topic, payload, options] in their order, with as many in flight as the broker allows:
  // MQTT.js does not count them.
  async publishAll(messages) {
    const waiting = [...messages]
    const send = async () => {
      for (let m; (m = waiting.shift());) await this.publish(...m)
    }
    const quota = this.connack.properties?.receiveMaximum ?? 65535
    await Promise.all(Array.from({ length: Math.min(quota, waiting.length) }, send))
  }

  async next() {
    while (this.inbox.length === 0) {
      if (!this.client.connected && this.client.options.reconnectPeriod === 0) {
        throw new Error(`${this.id} has lost its connection (${this.reason ?? this.error?.message ?? 'no reason'})`)
      }
      await new Promise((resolve) => (this.wake = resolve))
    }
    return this.inbox.shift()
  }

  async wants(topic, payload, { qos = 1, retain = false } = {}) {
    const got = await this.next()
    differ(`what ${this.id} receives`, [got.topic, got.payload.toString('latin1'), got.qos, got.retain],
      [topic, Buffer.from(payload).toString('latin1'), qos, retain])
    return got
  }

  async silent(milliseconds = quiet) {
    await pause(milliseconds)
    if (this.inbox.length > 0) throw new Error(`${this.id} receives ${this.inbox[0].payload} on ${this.inbox[0].topic}, nothing should come`)
  }

  // cut closes the socket without a word.
  async cut() {
    const closed = new Promise((resolve) => this.client.once('close', resolve))
    this.client.stream.destroy()
    await closed
  }

  close(packet = {}) {
    return this.client.endAsync(false, packet)
  }
}

const numbers = (n) => Array.from({ length: n }, (_, i) => String(i))

async function inOrder(s, qos, n = 500) {
  const [subscriber, publisher] = [await s.enter('subscriber'), await s.enter('publisher')]
  await subscriber.subscribe(s.name('t'), { qos })
  await publisher.publishAll(numbers(n).map((i) => [s.name('t'), i, { qos }]))
  for (const i of numbers(n)) await subscriber.wants(s.name('t'), i, { qos })
  await subscriber.silent()
}

async function large(s) {
  const [subscriber, publisher] = [await s.enter('subscriber'), await s.enter('publisher')]
  await subscriber.subscribe(s.name('t'), { qos: 2 })
  const hash = (bytes) => createHash('sha256').update(bytes).digest('hex')
  for (const qos of [0, 1, 2]) {
    const noise = randomBytes(1 << 20)
    await publisher.publish(s.name('t'), noise, { qos })
    differ(`the hash at QoS ${qos}`, hash((await subscriber.next()).payload), hash(noise))
  }
}

async function unicode(s) {
  const [subscriber, publisher] = [await s.enter('subscriber'), await s.enter('publisher-ß-東京')]
  await subscriber.subscribe(s.name('#'))
  const payloads = ['', '\0', 'a\0b\0', Buffer.from([0xff, 0xfe, 0x80]), '日本', '\r\n']
  for (const topic of ['ü/ß', '東京/温度', 'Ελλάδα', '😀/🌡', 'with space', 'e\u0301', '\u200d']) {
    for (const payload of payloads) {
      await publisher.publish(s.name(topic), payload)
      await subscriber.wants(s.name(topic), payload)
    }
  }
}

async function wildcards(s) {
  const topics = ['a', 'a/b', 'a/b/c', 'a//c', 'a/', 'c/d', '$x']
  const filters = {
    'a': [0], 'a/b': [1], '#': [0, 1, 2, 3, 4, 5, 6], 'a/#': [0, 1, 2, 3, 4], '+': [0, 6], 'a/+': [1, 4], '+/b': [1],
    'a/+/c': [2, 3], '+/+': [1, 4, 5], 'a/b/#': [1, 2], '+/b/+': [2], '/+': [], '+/': [4], '$x': [6]
  }
  const subscribers = {}
  for (const filter of Object.keys(filters)) {
    subscribers[filter] = await s.enter(`sub ${filter}`)
    await subscribers[filter].subscribe(s.name(filter))
    await subscribers[filter].subscribe(s.name('end of all'))
  }
  const publisher = await s.enter('publisher')
  for (const topic of [...topics, 'end of all']) await publisher.publish(s.name(topic), topic)
  for (const [filter, want] of Object.entries(filters)) {
    const got = []
    for (let m; (m = await subscribers[filter].next()).topic !== s.name('end of all');) got.push(topics.indexOf(m.payload.toString()))
    differ(`what matches ${filter}`, got.sort(), want)
  }
  const first = await s.enter('first level') // A topic that begins with $ is not for who begins with a wildcard.
  await first.subscribe(`+/${s.name('t')}`, { qos: 0 })
  await publisher.publish(`$dollar/${s.name('t')}`, 'not for +', { qos: 0 })
  await publisher.publish(`plain/${s.name('t')}`, 'for +', { qos: 0 })
  await first.wants(`plain/${s.name('t')}`, 'for +', { qos: 0 })
  await first.silent()
}

async function unsubscribe(s) {
  const [subscriber, publisher] = [await s.enter('subscriber'), await s.enter('publisher')]
  for (const topic of ['a', 'b']) await subscriber.subscribe(s.name(topic))
  for (const topic of ['a', 'b']) await publisher.publish(s.name(topic), 'before')
  for (const topic of ['a', 'b']) await subscriber.wants(s.name(topic), 'before')
  await subscriber.client.unsubscribeAsync(s.name('a'))
  for (const topic of ['a', 'b']) await publisher.publish(s.name(topic), 'after')
  await subscriber.wants(s.name('b'), 'after')
  await subscriber.silent()
}

async function retained(s) {
  const [live, publisher] = [await s.enter('live'), await s.enter('publisher')]
  const topic = s.name('t')
  await live.subscribe(topic)
  for (const payload of ['old', 'new']) {
    await publisher.publish(topic, payload, { qos: 1, retain: true })
    await live.wants(topic, payload)
  }
  const late = await s.enter('late')
  await late.subscribe(topic)
  await late.wants(topic, 'new', { retain: true })
  await publisher.publish(topic, '', { qos: 1, retain: true })
  await live.wants(topic, '')
  const last = await s.enter('last')
  await last.subscribe(topic)
  await publisher.publish(topic, 'end')
  await last.wants(topic, 'end')
  await last.silent()
}

async function options(s) {
  const publisher = await s.enter('publisher')
  const topic = s.name('t')
  await publisher.publish(topic, 'old', { qos: 1, retain: true })
  for (const [rh, comes] of [[0, [true, true]], [1, [true, false]], [2, [false, false]]]) {
    const actor = await s.enter(`handling ${rh}`)
    for (const c of comes) {
      await actor.subscribe(topic, { qos: 1, rh })
      if (c) await actor.wants(topic, 'old', { retain: true })
    }
    await actor.silent()
  }
  const [published, plain] = [await s.enter('as published'), await s.enter('not as published')]
  await published.subscribe(topic, { qos: 1, rap: true, rh: 2 })
  await plain.subscribe(topic, { qos: 1, rh: 2 })
  await publisher.subscribe(topic, { qos: 1, nl: true, rh: 2 })
  await publisher.publish(topic, '', { qos: 1, retain: true })
  await published.wants(topic, '', { retain: true })
  await plain.wants(topic, '')
  await publisher.silent()
}

async function shared(s, n = 400) {
  const workers = [await s.enter('worker 1'), await s.enter('worker 2')]
  for (const worker of workers) await worker.subscribe(`$share/group/${s.name('t')}`)
  const publisher = await s.enter('publisher')
  await publisher.publishAll(numbers(n).map((i) => [s.name('t'), i]))
  const inboxes = () => workers.flatMap((worker) => worker.inbox)
  while (inboxes().length < n) await pause(10)
  for (const worker of workers) if (worker.inbox.length === 0) throw new Error(`${worker.id} has nothing`)
  await pause(quiet)
  differ('the messages of both', inboxes().map((m) => Number(m.payload)).sort((a, b) => a - b), numbers(n).map(Number))
}

const spread = (users) => Object.fromEntries(Object.entries(users ?? {}).map(([key, value]) => [key, [value].flat()]))

async function properties(s) {
  const subscriber = await s.enter('subscriber')
  await subscriber.subscribe(s.name('t'), { qos: 1, properties: { subscriptionIdentifier: 268435455 } })
  const want = {
    contentType: 'text/plain; charset=utf-8', responseTopic: s.name('answers/ü'), correlationData: Buffer.from([0, 0xff, 1, 0]),
    payloadFormatIndicator: true, messageExpiryInterval: 100, userProperties: { b: ['1', '3', '1'], a: '2', ü: 'ß' }
  }
  await (await s.enter('publisher')).publish(s.name('t'), 'ü', { qos: 1, properties: want })
  const got = { ...(await subscriber.wants(s.name('t'), 'ü')).packet.properties }
  if (!(got.messageExpiryInterval >= 90 && got.messageExpiryInterval <= 100)) throw new Error(`Message Expiry is ${got.messageExpiryInterval}`)
  const plain = (p) => ({ ...p, messageExpiryInterval: 100, userProperties: spread(p.userProperties) })
  differ('the properties', plain(got), plain({ ...want, subscriptionIdentifier: 268435455 }))
  return 'keeps User Properties by key: the order between different keys is lost in the library'
}

async function expiry(s) {
  const publisher = await s.enter('publisher')
  for (const [topic, messageExpiryInterval] of [['long', 100], ['brief', 1]]) {
    await publisher.publish(s.name(topic), topic, { qos: 1, retain: true, properties: { messageExpiryInterval } })
  }
  await pause(2500)
  const subscriber = await s.enter('subscriber')
  await subscriber.subscribe(s.name('#'))
  const { packet } = await subscriber.wants(s.name('long'), 'long', { retain: true })
  const left = packet.properties?.messageExpiryInterval
  if (!(left >= 60 && left <= 98)) throw new Error(`a Message Expiry Interval of 100 is ${left} after more than 2 s`)
  await subscriber.silent()
  await publisher.publish(s.name('long'), '', { qos: 1, retain: true })
}

async function request(s, n = 20) {
  const [responder, requester] = [await s.enter('responder'), await s.enter('requester')]
  await responder.subscribe(s.name('requests'))
  await requester.subscribe(s.name('answers'))
  const correlation = (i) => Buffer.from(`\0${i}\xff`, 'latin1')
  for (const i of numbers(n)) {
    await requester.publish(s.name('requests'), i, { qos: 1, properties: { responseTopic: s.name('answers'), correlationData: correlation(i) } })
  }
  for (let i = 0; i < n; i++) {
    const { payload, packet } = await responder.next()
    const { responseTopic, correlationData } = packet.properties
    await responder.publish(responseTopic, `answer to ${payload}`, { qos: 1, properties: { correlationData } })
  }
  for (const i of numbers(n)) {
    const { packet } = await requester.wants(s.name('answers'), `answer to ${i}`)
    differ('the Correlation Data', packet.properties.correlationData, correlation(i))
  }
}

// forget ends a kept Session.
const forget = async (s, id) => (await s.enter(id)).close()

async function session(s, n = 100) {
  await forget(s, 'sleeper')
  const first = await s.enter('sleeper', { keep: true })
  differ('Session Present', first.connack.sessionPresent, false)
  await first.subscribe(s.name('t'), { qos: 2 })
  await first.close()
  const publisher = await s.enter('publisher')
  await publisher.publishAll(numbers(n).map((i) => [s.name('t'), i, { qos: 1 + (i % 2) }]))
  const second = await s.enter('sleeper', { resume: true })
  differ('Session Present', second.connack.sessionPresent, true)
  const got = { 1: [], 2: [] } // The order is promised for each QoS by itself.
  for (let i = 0; i < n; i++) {
    const m = await second.next()
    got[m.qos].push(m.payload.toString())
  }
  await second.silent()
  for (const qos of [1, 2]) differ(`the order at QoS ${qos}`, got[qos], numbers(n).filter((i) => 1 + (i % 2) === qos))
  await second.close()
  const third = await s.enter('sleeper')
  differ('Session Present', third.connack.sessionPresent, false)
  await publisher.publish(s.name('t'), 'to nobody')
  await third.silent()
}

async function sessionExpiry(s) {
  const brief = { properties: { sessionExpiryInterval: 4 } }
  await (await s.enter('sleeper', brief)).close()
  const soon = await s.enter('sleeper', { resume: true, ...brief })
  differ('Session Present', soon.connack.sessionPresent, true)
  await soon.close()
  await pause(7000)
  const late = await s.enter('sleeper', { resume: true, ...brief })
  differ('Session Present after its Session Expiry Interval', late.connack.sessionPresent, false)
}

async function reconnect(s, n = 300) {
  await forget(s, 'subscriber')
  await forget(s, 'publisher')
  // Clean Start stays as it is when MQTT.js connects again: a Session needs it to be off from the beginning.
  const lasting = { resume: true, reconnectPeriod: 50 }
  const [subscriber, publisher] = [await s.enter('subscriber', lasting), await s.enter('publisher', lasting)]
  const present = []
  for (const { client } of [subscriber, publisher]) client.on('connect', (connack) => present.push(connack.sessionPresent))
  await subscriber.subscribe(s.name('t'), { qos: 2 })
  // Packet Identifier not found is no error after a cut: the broker had completed the message, and its PUBCOMP was lost.
  publisher.publish = (...message) => publisher.client.publishAsync(...message).catch((err) => { if (err.code !== 0x92) throw err })
  const sent = publisher.publishAll(numbers(n).map((i) => [s.name('t'), i, { qos: 2 }]))
  const got = []
  while (got.length < n) {
    got.push(Number((await subscriber.next()).payload))
    if (got.length === n / 4) await publisher.cut()
    if (got.length === n * 3 / 4) await subscriber.cut()
  }
  await sent
  await subscriber.silent()
  differ('what has come', got.sort((a, b) => a - b), numbers(n).map(Number))
  differ('Session Present of both', present, [true, true])
  for (const actor of [subscriber, publisher]) {
    await actor.close()
    await forget(s, actor.id)
  }
  if (s.v5) return 'takes PUBCOMP with 0x92 after a cut for an error: the program must know that the message has arrived'
}

const willOf = (s, properties) => ({ topic: s.name('will'), payload: Buffer.from('gone'), qos: 1, retain: false, properties })

async function will(s) {
  const [watcher, publisher] = [await s.enter('watcher'), await s.enter('publisher')]
  await watcher.subscribe(s.name('#'))
  await (await s.enter('dying', { will: willOf(s) })).close()
  await publisher.publish(s.name('marker'), 'no will before this')
  await watcher.wants(s.name('marker'), 'no will before this')
  await (await s.enter('dying', { will: willOf(s) })).cut()
  await watcher.wants(s.name('will'), 'gone')
  await watcher.silent()
}

async function willDelay(s) {
  const [watcher, publisher] = [await s.enter('watcher'), await s.enter('publisher')]
  await watcher.subscribe(s.name('#'))
  const delayed = willOf(s, { willDelayInterval: 4 })
  await (await s.enter('dying', { keep: true, will: delayed })).cut()
  const back = await s.enter('dying', { resume: true, will: delayed })
  differ('Session Present', back.connack.sessionPresent, true)
  await watcher.silent(6000)
  await back.cut()
  await publisher.publish(s.name('marker'), 'before the will')
  await watcher.wants(s.name('marker'), 'before the will')
  await watcher.wants(s.name('will'), 'gone')
  await forget(s, 'dying')
}

async function willDisconnect(s) {
  const watcher = await s.enter('watcher')
  await watcher.subscribe(s.name('will'))
  await (await s.enter('dying', { will: willOf(s) })).close({ reasonCode: 4 })
  await watcher.wants(s.name('will'), 'gone')
  await watcher.silent()
}

async function takeover(s) {
  const first = await s.enter('twin')
  const second = await s.enter('twin')
  await first.closed
  if (s.v5) differ('the Reason Code of DISCONNECT', first.reason, 0x8e)
  await second.subscribe(s.name('t'))
  await second.publish(s.name('t'), 'mine')
  await second.wants(s.name('t'), 'mine')
}

async function keepAlive(s) {
  const idle = await s.enter('idle', { keepalive: 4 })
  let answered = 0
  idle.client.on('packetreceive', (packet) => (answered += packet.cmd === 'pingresp'))
  await idle.subscribe(s.name('t'))
  await pause(10_000)
  differ('there are answers to PINGREQ', answered > 0, true)
  await (await s.enter('publisher')).publish(s.name('t'), 'still here')
  await idle.wants(s.name('t'), 'still here')
}

async function close(s) {
  const [watcher, publisher] = [await s.enter('watcher'), await s.enter('publisher')]
  await watcher.subscribe(s.name('will'))
  const first = await s.enter('leaver', { will: willOf(s) })
  await first.subscribe(s.name('t'))
  await first.close()
  await publisher.publish(s.name('t'), 'meanwhile')
  const second = await s.enter('leaver', { resume: true })
  differ('Session Present', second.connack.sessionPresent, false)
  await second.silent()
  await second.close()
  await forget(s, 'leaver')
  await watcher.silent()
}

// aliased runs through three topics, 20 times, and gives how many PUBLISH had no topic on the wire.
async function aliased(s, subscriber, publisher, event, by) {
  let without = 0
  by.client.on(event, (packet) => (without += packet.cmd === 'publish' && packet.topic.length === 0))
  await subscriber.subscribe(s.name('#'))
  for (let i = 0; i < 60; i++) {
    const [topic, qos] = [s.name(`t${i % 3}`), i % 2]
    await publisher.publish(topic, String(i), { qos })
    await subscriber.wants(topic, String(i), { qos })
  }
  return without
}

async function aliasOut(s) {
  const subscriber = await s.enter('subscriber')
  const publisher = await s.enter('publisher', { autoAssignTopicAlias: true })
  if (!(publisher.connack.properties?.topicAliasMaximum >= 3)) throw new Impossible('the broker takes no Topic Aliases')
  differ('PUBLISH without a topic', await aliased(s, subscriber, publisher, 'packetsend', publisher), 57)
}

async function aliasIn(s) {
  const subscriber = await s.enter('subscriber', { properties: { topicAliasMaximum: 3 } })
  const without = await aliased(s, subscriber, await s.enter('publisher'), 'packetreceive', subscriber)
  if (without === 0) throw new Impossible('the broker sends no Topic Aliases')
}

// receiveMaximum counts what the client has been given and has not completed. The messages wait for it: those that the broker sends
// first come ahead of any answer to them, however fast each side is.
async function receiveMaximum(s, n = 100, most = 3) {
  const away = await s.enter('subscriber', { keep: true })
  await away.subscribe(s.name('t'), { qos: 2 })
  await away.close()
  const publisher = await s.enter('publisher')
  await publisher.publishAll(numbers(n).map((i) => [s.name('t'), i, { qos: 2 }]))
  const open = new Set()
  let top = 0
  const watch = (client) => {
    client.on('packetreceive', ({ cmd, messageId }) => {
      if (cmd === 'publish') top = Math.max(top, open.add(messageId).size)
    })
    client.on('packetsend', ({ cmd, messageId }) => cmd === 'pubcomp' && open.delete(messageId))
  }
  const subscriber = await s.enter('subscriber', { resume: true, properties: { receiveMaximum: most }, watch })
  for (const i of numbers(n)) await subscriber.wants(s.name('t'), i, { qos: 2 })
  differ('the most messages in flight', top, most)
  await subscriber.close()
  await forget(s, 'subscriber')
}

// sendQuota has as many in flight as the broker allows all the time, by publishAll.
async function sendQuota(s, n = 300) {
  const [subscriber, publisher] = [await s.enter('subscriber'), await s.enter('publisher')]
  await subscriber.subscribe(s.name('t'), { qos: 2 })
  for (const qos of [1, 2]) {
    await publisher.publishAll(numbers(n).map((i) => [s.name('t'), i, { qos }]))
    for (const i of numbers(n)) await subscriber.wants(s.name('t'), i, { qos })
  }
  await subscriber.silent()
  return 'does not keep the broker’s Receive Maximum: the program must count what it has in flight'
}

const crossProperties = (s) => ({
  contentType: 'text/plain', responseTopic: s.name('answers'), correlationData: Buffer.from([0xff, 1, 0x80]), userProperties: { b: ['1', '3'], a: '2' }
})

const keep = async (s) => (await s.enter('keeper')).publish(s.name('kept'), 'kept', { qos: 1, retain: true })

const forgetKept = async (s) => (await s.enter('keeper')).publish(s.name('kept'), '', { qos: 1, retain: true })

async function send(s) {
  const sender = await s.enter('sender')
  for (const i of numbers(100)) await sender.publish(s.name('messages'), i, { qos: 2, ...(s.v5 && { properties: crossProperties(s) }) })
}

async function receive(s) {
  const receiver = await s.enter(`receiver mqtt.js ${s.version}`)
  await receiver.subscribe(s.name('kept'), { qos: 2 })
  await receiver.wants(s.name('kept'), 'kept', { retain: true })
  await receiver.subscribe(s.name('messages'), { qos: 2 })
  s.onReady()
  for (const i of numbers(100)) {
    const { packet } = await receiver.wants(s.name('messages'), i, { qos: 2 })
    if (!s.v5) continue
    const plain = (p) => ({ ...p, userProperties: spread(p?.userProperties) })
    differ('the properties', plain(packet.properties), plain(s.from === '5.0' ? crossProperties(s) : {}))
  }
}

const scenes = {
  qos0: (s) => inOrder(s, 0), qos1: (s) => inOrder(s, 1), qos2: (s) => inOrder(s, 2),
  large, unicode, wildcards, unsubscribe, retained, options, shared, properties, expiry, request, session, 'session-expiry': sessionExpiry,
  reconnect, will, 'will-delay': willDelay, 'will-disconnect': willDisconnect, takeover, keepalive: keepAlive, close,
  'alias-out': aliasOut, 'alias-in': aliasIn, 'receive-maximum': receiveMaximum, 'send-quota': sendQuota,
  keep, forget: forgetKept, send, receive
}

// play runs one task within its limit and gives the answer.
async function play(task) {
  const s = new Stage(task, () => say({ ready: true }))
  let timer
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`takes longer than ${task.seconds} s`)), task.seconds * 1000)
  })
  try {
    const scene = scenes[task.scene] ?? (() => { throw new Error(`the script does not know the scene ${task.scene}`) })
    const remark = await Promise.race([(async () => scene(s))(), limit])
    await Promise.race([s.end(), limit])
    return { ok: true, ...(typeof remark === 'string' && { why: remark }) }
  } catch (err) {
    return err instanceof Impossible ? { none: err.message } : { ok: false, why: String(err.message || err) }
  } finally {
    clearTimeout(timer)
  }
}

const say = (answer) => process.stdout.write(JSON.stringify(answer) + '\n')

say({ version: createRequire(import.meta.url)('mqtt/package.json').version })
for await (const line of createInterface({ input: process.stdin })) say(await play(JSON.parse(line)))
process.exit(0)

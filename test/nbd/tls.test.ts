/**
 * TLS on the TCP door: what comes before it is refused or forgotten, what comes beside it is never taken for it, and who has no
 * right certificate is kept out. Refusals outnumber what is granted; behind each the server still serves others.
 */
import { createHash, randomFillSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openMemoryStore, serveNbd } from '../../src/index.ts'
import { readTls } from '../../src/nbd/tls.ts'
import { describeWithPeers } from '../support/peers.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import {
  be32,
  Client,
  CMD,
  EINVAL,
  infoData,
  MemoryExport,
  MiB,
  metaData,
  OPT,
  REP,
  request,
  types,
  words,
} from './support.ts'
import {
  acknowledged,
  behindTls,
  type Certificates,
  type DoorOptions,
  makeCertificates,
  secured,
  tlsDoor,
} from './tls-support.ts'

const TLS_REQUIRED = 0x80000005
const vda = (size = MiB) => new MemoryExport('vda', size, false, 'the first disk')

describeWithPeers(['openssl'], 'TLS', () => {
  let pki: Certificates
  let trusting: ConnectionOptions
  beforeAll(() => {
    pki = makeCertificates()
    trusting = { ca: pki.pem('ca.pem') }
  }, 120_000)
  afterAll(() => pki.remove())

  const as = (name: string, more: ConnectionOptions = {}): ConnectionOptions => ({
    ...trusting,
    cert: pki.pem(`${name}.pem`),
    key: pki.pem(`${name}.key`),
    ...more,
  })
  async function opened(options: DoorOptions = {}, disk = vda()) {
    const door = await tlsDoor(pki, [disk], options)
    return { ...door, disk }
  }
  /** In transmission, behind TLS. */
  async function through(port: number, options: ConnectionOptions = trusting): Promise<Client> {
    const client = await secured(port, options)
    expect(types(await client.option(OPT.go, infoData('vda'))).at(-1)).toBe(REP.ack)
    return client
  }
  /** Another client comes in, writes and reads. */
  async function expectServed(port: number, options: ConnectionOptions = trusting): Promise<void> {
    const client = await through(port, options)
    await client.call({ type: CMD.write, offset: 4096, data: Buffer.from('still here') })
    const read = await client.call({ type: CMD.read, offset: 4096, length: 10 })
    expect(read!.data.toString()).toBe('still here')
    client.socket.destroy()
  }
  async function until(condition: () => boolean): Promise<void> {
    while (!condition()) await sleep(5)
  }

  test.each(['TLSv1.2', 'TLSv1.3'] as const)('a client of %s is served behind STARTTLS', async (version) => {
    const { port, disk, told } = await opened()
    const client = await secured(port, { ...trusting, minVersion: version, maxVersion: version })
    expect((client.socket as TLSSocket).getProtocol()).toBe(version)
    const list = await client.option(OPT.list)
    expect(types(list)).toEqual([REP.server, REP.ack])
    await client.option(OPT.go, infoData('vda'))
    await client.call({ type: CMD.write, offset: 8, data: Buffer.from('secret'), flags: 1 })
    expect((await client.call({ type: CMD.read, offset: 8, length: 6 }))!.data.toString()).toBe('secret')
    expect(disk.bytes.toString('latin1', 8, 14)).toBe('secret')
    client.ask({ type: CMD.disc })
    expect(await client.rest()).toHaveLength(0)
    expect(told).toEqual([])
  })

  test('what goes in one piece comes out in one piece: 32 MiB, and 64 requests at once', async () => {
    const { port, disk } = await opened({}, vda(32 * MiB))
    const client = await through(port)
    const data = randomFillSync(Buffer.alloc(32 * MiB))
    expect(await client.call({ type: CMD.write, data })).toMatchObject({ errno: 0 })
    const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
    expect(digest(disk.bytes)).toBe(digest(data))
    for (let i = 0; i < 64; i++)
      client.ask({ type: CMD.read, cookie: i, offset: i * 500_000, length: 500_000 })
    for (let i = 0; i < 64; i++) {
      const { cookie, data: read } = (await client.reply())!
      expect(read.equals(data.subarray(cookie * 500_000, (cookie + 1) * 500_000))).toBe(true)
    }
  })

  test('who has said its last behind TLS still reads what it asked for', async () => {
    const { port } = await opened()
    const client = await through(port)
    for (let i = 0; i < 20; i++) client.ask({ type: CMD.read, cookie: i, length: 1000 })
    client.socket.end()
    for (let i = 0; i < 20; i++) expect(await client.reply()).toMatchObject({ errno: 0 })
    expect(await client.rest()).toHaveLength(0)
  })

  test('the Unix socket beside it is without TLS, and says so to who asks', async () => {
    const { socket, tcp } = await opened({ checked: true })
    expect(tcp!.tls).toMatchObject({ required: true, clientCertificates: true })
    expect(tcp!.tls!.expires).toBe(Date.UTC(2099, 0, 1))
    const client = new Client(socket)
    await client.greet()
    const refused = await client.option(OPT.startTls)
    expect([types(refused), words(refused)]).toEqual([[REP.policy], 'TLS not configured'])
    expect(types(await client.option(OPT.go, infoData('vda'))).at(-1)).toBe(REP.ack)
    expect(await client.call({ type: CMD.flush })).toMatchObject({ errno: 0 })
  })

  test('where TLS is offered and not required, both kinds of clients are served', async () => {
    const { port, told } = await opened({ required: false })
    const plain = await new Client(port).go('vda')
    await plain.call({ type: CMD.write, data: Buffer.from('clear') })
    const client = await through(port)
    expect((await client.call({ type: CMD.read, length: 5 }))!.data.toString()).toBe('clear')
    expect(told).toEqual([])
  })

  test('whatever was agreed before TLS is forgotten behind it: structured replies and contexts', async () => {
    const { port } = await opened({ required: false })
    const before = new Client(port)
    await before.greet()
    expect(types(await before.option(OPT.structured))).toEqual([REP.ack])
    const set = metaData('vda', ['base:allocation'])
    expect(types(await before.option(OPT.setMeta, set))).toEqual([REP.meta, REP.ack])
    await acknowledged(before)
    const client = await behindTls(before, trusting)
    const refused = await client.option(OPT.setMeta, set)
    expect([types(refused), words(refused)]).toEqual([
      [REP.invalid],
      expect.stringContaining('structured reply is not negotiated'),
    ])
    const go = await client.option(OPT.go, infoData('vda'))
    expect(go.at(-2)!.data.readUInt16BE(10)).toBe(0xd6d)
    // A simple reply, and no block status.
    expect(await client.call({ type: CMD.read, length: 4 })).toMatchObject({ type: -1, errno: 0 })
    expect(await client.call({ type: CMD.status, length: 4096 })).toMatchObject({ type: -1, errno: EINVAL })
  })

  test.each([
    ['LIST', OPT.list, Buffer.alloc(0)],
    ['INFO', OPT.info, infoData('vda')],
    ['GO', OPT.go, infoData('vda')],
    ['GO for an export that is not there', OPT.go, infoData('nope')],
    ['GO that is malformed', OPT.go, Buffer.alloc(3)],
    ['STRUCTURED_REPLY', OPT.structured, Buffer.alloc(0)],
    ['LIST_META_CONTEXT', OPT.listMeta, metaData('vda', [])],
    ['SET_META_CONTEXT', OPT.setMeta, metaData('vda', ['base:allocation'])],
    ['an option that nobody knows', 99, Buffer.alloc(5)],
    ['an option that is too long', OPT.info, Buffer.alloc(70_000)],
  ])('before TLS, %s is answered that TLS is required, and nothing is told', async (_, option, data) => {
    const { port, disk } = await opened()
    const client = new Client(port)
    await client.greet()
    const replies = await client.option(option, data)
    expect(types(replies)).toEqual([TLS_REQUIRED])
    expect(words(replies)).not.toContain('vda')
    await acknowledged(client)
    expect(types(await (await behindTls(client, trusting)).option(OPT.list))).toEqual([REP.server, REP.ack])
    expect(disk.calls).toEqual([])
  })

  test.each([0, 1, 2, 3])(
    'before TLS, EXPORT_NAME ends the connection: it cannot be answered (flags %i)',
    async (flags) => {
      const { port } = await opened()
      const client = new Client(port)
      await client.greet(flags)
      client.sendOption(OPT.exportName, Buffer.from('vda'))
      expect(await client.rest()).toHaveLength(0)
    },
  )

  test('before TLS, ABORT is acknowledged', async () => {
    const { port } = await opened()
    const client = new Client(port)
    await client.greet()
    expect(types(await client.option(OPT.abort))).toEqual([REP.ack])
    expect(await client.rest()).toHaveLength(0)
  })

  test.each([0, 2])('a client of the old handshake cannot ask for TLS (flags %i)', async (flags) => {
    const { port } = await opened()
    const client = new Client(port)
    await client.greet(flags)
    client.sendOption(OPT.startTls)
    expect(await client.rest()).toHaveLength(0)
  })

  test('STARTTLS with data is invalid, and may be sent again without', async () => {
    const { port } = await opened()
    const client = new Client(port)
    await client.greet()
    for (const data of [Buffer.alloc(1), Buffer.alloc(4096)])
      expect(types(await client.option(OPT.startTls, data))).toEqual([REP.invalid])
    await acknowledged(client)
    await behindTls(client, trusting)
  })

  test('behind TLS, STARTTLS is invalid, nothing is answered that TLS is required, and the client may go on', async () => {
    const { port } = await opened()
    const client = await secured(port, trusting)
    for (const data of [Buffer.alloc(0), Buffer.alloc(7), Buffer.alloc(0)])
      expect(types(await client.option(OPT.startTls, data))).toEqual([REP.invalid])
    expect(types(await client.option(99))).toEqual([REP.unsupported])
    expect(types(await client.option(OPT.info, Buffer.alloc(70_000)))).toEqual([REP.tooBig])
    expect(types(await client.option(OPT.go, infoData('vda'))).at(-1)).toBe(REP.ack)
    expect(await client.call({ type: CMD.flush })).toMatchObject({ errno: 0 })
  })

  const optionBytes = (option: number, data: Uint8Array = Buffer.alloc(0)): Buffer =>
    Buffer.concat([Buffer.from('IHAVEOPT'), be32(option), be32(data.length), data])
  const INJECTED: readonly (readonly [string, Uint8Array])[] = [
    ['one byte', Buffer.alloc(1)],
    ['LIST', optionBytes(OPT.list)],
    ['ABORT', optionBytes(OPT.abort)],
    ['STARTTLS once more', optionBytes(OPT.startTls)],
    [
      'GO and a write',
      Buffer.concat([
        optionBytes(OPT.go, infoData('vda')),
        request({ type: CMD.write, length: 6 }),
        Buffer.from('forged'),
      ]),
    ],
    ['the beginning of a TLS handshake', Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])],
    ['300 KiB, more than is read ahead', Buffer.alloc(300 * 1024, optionBytes(OPT.list))],
  ]

  test.each(INJECTED)(
    'what comes in the clear behind STARTTLS in the same piece is never taken: %s',
    async (_, injected) => {
      const { port, disk } = await opened()
      const client = new Client(port)
      await client.greet()
      client.send(optionBytes(OPT.startTls), injected)
      expect(await client.rest()).toHaveLength(0)
      expect(disk.calls).toEqual([])
      await expectServed(port)
    },
  )

  test.each(INJECTED.slice(0, 5))(
    'what is put in the clear before the handshake of an honest client spoils it, and is never taken: %s',
    async (_, injected) => {
      const { port, disk } = await opened()
      const client = new Client(port)
      await client.greet()
      await acknowledged(client)
      client.send(injected)
      await expect(behindTls(client, trusting)).rejects.toThrow()
      expect(disk.calls).toEqual([])
      await expectServed(port)
    },
  )

  test('options sent behind STARTTLS in any pieces and at any time are never answered', async () => {
    const rounds = runs(60, 2000)
    const used = seed()
    announce('STARTTLS with more in the clear behind it', rounds, used)
    const random = prng(used)
    const { port, disk, counts } = await opened()
    const stream = Buffer.concat([optionBytes(OPT.startTls), INJECTED[4]![1]])
    const ack = 20
    for (let round = 0; round < rounds; round++) {
      const client = new Client(port)
      await client.greet()
      for (let at = 0; at < stream.length; ) {
        const end = Math.min(stream.length, at + 1 + Math.floor(random() * stream.length))
        client.send(stream.subarray(at, end))
        at = end
        if (random() < 0.5) await sleep(random() * 3)
      }
      const heard = await client.rest()
      // The acknowledgement at most, and behind it TLS's own alert.
      if (heard.length > ack) expect(heard[ack]).toBe(21)
      expect(heard.length).toBeLessThan(ack + 32)
    }
    expect([disk.calls, counts().writes]).toEqual([[], 0])
    await expectServed(port)
  })

  test.each([
    ['nothing but zeroes', Buffer.alloc(100)],
    ['words', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['a record that is too long', Buffer.from([22, 3, 1, 0xff, 0xff, ...Buffer.alloc(0xffff)])],
    ['an alert', Buffer.from([21, 3, 1, 0, 2, 2, 40])],
    ['data before the handshake', Buffer.from([23, 3, 3, 0, 4, 1, 2, 3, 4])],
    [
      'a ClientHello of SSL 2',
      Buffer.from([0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, ...Buffer.alloc(37)]),
    ],
    ['a ClientHello of garbage', Buffer.from([22, 3, 1, 0, 8, 1, 0, 0, 4, 3, 3, 0, 0])],
  ])('%s in place of a TLS handshake ends the connection, and the reason is told', async (_, bytes) => {
    const { port, told } = await opened()
    const client = new Client(port)
    await client.greet()
    await acknowledged(client)
    client.send(bytes)
    expect((await client.rest()).length).toBeLessThan(32)
    await until(() => told.length > 0)
    expect(told).toEqual([expect.stringMatching(/^TLS handshake: [^:]+$/)])
    await expectServed(port)
  })

  test('TLS 1.1 is too old', async () => {
    const { port, told } = await opened()
    const old = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const
    await expect(secured(port, { ...trusting, ...old })).rejects.toThrow(/version/)
    await until(() => told.length > 0)
    expect(told[0]).toMatch(/^TLS handshake: .*(version|protocol)/)
    await expectServed(port)
  })

  /** With TLS 1.3 a client learns only from its first answer that it was not let in. */
  async function refused(port: number, options: ConnectionOptions): Promise<boolean> {
    try {
      const client = await secured(port, options)
      return (await client.option(OPT.list)).length === 0
    } catch {
      return true
    }
  }

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'with an authority for clients, only its certificates are let in: %s',
    async (version) => {
      const { port, disk, told, counts } = await opened({ checked: true })
      const only = { minVersion: version, maxVersion: version } as const
      expect(await refused(port, { ...trusting, ...only })).toBe(true)
      for (const name of ['stranger', 'self', 'late-client', 'server'])
        expect([name, await refused(port, as(name, only))]).toEqual([name, true])
      await until(() => told.length === 5)
      expect(told).toEqual([
        expect.stringMatching(/certificate/),
        ...[
          'UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT',
          'SELF_SIGNED',
          'CERT_HAS_EXPIRED',
        ].map((why) => expect.stringMatching(new RegExp(`^TLS handshake: .*(${why})`))),
        expect.stringMatching(/INVALID_PURPOSE|unsupported|purpose/i),
      ])
      await expectServed(port, as('client', only))
      await until(() => counts().connected === 0)
      expect(disk.calls).toHaveLength(2)
    },
  )

  test.each([
    ['another authority', 'server', () => ({ ca: pki.pem('other-ca.pem') }), /certificate|signature|issuer/],
    ['no authority that it knows', 'server', () => ({}), /certificate|signature|issuer/],
    ['another host', 'elsewhere', () => trusting, /altnames/],
  ] as const)('a client that trusts %s leaves, and the server goes on', async (_, server, options, why) => {
    const { port, counts } = await opened({ server })
    await expect(secured(port, options())).rejects.toThrow(why)
    await until(() => counts().connected === 0)
    const other = server === 'elsewhere' ? { ...trusting, servername: 'elsewhere.example' } : trusting
    await expectServed(port, other)
  })

  test('who does not finish the TLS handshake in time is closed; who is through may be silent', async () => {
    const { port, counts, told } = await opened({ handshakeMs: 2000 })
    const silent = await through(port)
    const beginnings = [[], [22], [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]]
    const stopped = await Promise.all(
      beginnings.map(async (bytes) => {
        const client = new Client(port)
        await client.greet()
        await acknowledged(client)
        client.send(Buffer.from(bytes))
        return client
      }),
    )
    for (const client of stopped) expect(await client.rest()).toHaveLength(0)
    await until(() => counts().connected === 1)
    // Nobody's failure: it just did not come.
    expect(told).toEqual([])
    expect(await silent.call({ type: CMD.flush })).toMatchObject({ errno: 0 })
  })

  test.each(['end', 'destroy', 'reset'] as const)(
    'a client that goes away in the middle of the handshake (%s) is gone at once',
    async (how) => {
      const { port, counts } = await opened({ handshakeMs: 1_000_000 })
      for (const bytes of [[], [22, 3, 1], [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]]) {
        const client = new Client(port)
        await client.greet()
        await acknowledged(client)
        client.send(Buffer.from(bytes))
        if (how === 'end') client.socket.end()
        else if (how === 'destroy') client.socket.destroy()
        else client.socket.resetAndDestroy()
        await until(() => counts().connected === 0)
      }
      await expectServed(port)
    },
  )

  test('close ends handshakes that are under way, and lets what runs behind TLS end and answers it', async () => {
    const { port, disk, close, counts } = await opened({ handshakeMs: 1_000_000 })
    let release = (): void => undefined
    const wait = new Promise<void>((resolve) => {
      release = resolve
    })
    const client = await through(port)
    disk.before = () => wait
    for (let i = 0; i < 5; i++) client.ask({ type: CMD.write, cookie: i, data: Buffer.alloc(16, 1) })
    await until(() => disk.running === 5)
    const middle = new Client(port)
    await middle.greet()
    await acknowledged(middle)
    middle.send(Buffer.from([22, 3, 1]))
    const idle = await secured(port, trusting)
    const closing = close()
    expect(await middle.rest()).toHaveLength(0)
    expect(await idle.rest()).toHaveLength(0)
    release()
    for (let i = 0; i < 5; i++) expect(await client.reply()).toMatchObject({ errno: 0 })
    expect(await client.rest()).toHaveLength(0)
    await closing
    expect([counts().connected, disk.running]).toEqual([0, 0])
  })

  test('connections dropped at any moment of TLS leave nothing behind', async () => {
    const count = runs(60, 2000)
    const used = seed()
    announce('NBD connections over TLS opened and dropped', count, used)
    const random = prng(used)
    const { port, counts, disk } = await opened({ handshakeMs: 1_000_000 })
    const drop = async (): Promise<void> => {
      const client = new Client(port)
      await client.greet()
      const stage = Math.floor(random() * 5)
      if (stage > 0) await acknowledged(client)
      let last = client
      if (stage === 1) client.send(Buffer.alloc(Math.floor(random() * 50), 22))
      // The promise is of no interest: the connection goes away under it.
      if (stage === 2) void behindTls(client, trusting).catch(() => undefined)
      if (stage === 2) await sleep(random() * 20)
      if (stage > 2) last = await behindTls(client, trusting)
      if (stage === 4) {
        await last.option(OPT.go, infoData('vda'))
        last.ask({ type: CMD.read, length: MiB })
      }
      if (random() < 0.5) last.socket.destroy()
      else client.socket.destroy()
    }
    for (let left = count; left > 0; left -= 10)
      await Promise.all(Array.from({ length: Math.min(left, 10) }, drop))
    await until(() => counts().connected === 0)
    expect([counts().connections, disk.running]).toEqual([count, 0])
    await expectServed(port)
  })

  const INVALID: readonly (readonly [string, () => Partial<Parameters<typeof readTls>[0]>, string])[] = [
    ['a certificate that is not there', () => ({ certificate: pki.path('nowhere') }), 'unreadable'],
    ['a folder', () => ({ certificate: pki.path('') }), 'unreadable'],
    ['a key that is not there', () => ({ key: pki.path('nowhere') }), 'unreadable'],
    ['an authority that is not there', () => ({ clientCa: pki.path('nowhere') }), 'unreadable'],
    [
      'a key in place of the certificate',
      () => ({ certificate: pki.path('server.key') }),
      'not-a-certificate',
    ],
    ['a certificate of garbage', () => ({ certificate: pki.path('garbage.pem') }), 'not-a-certificate'],
    ['an empty file', () => ({ certificate: '/dev/null' }), 'not-a-certificate'],
    ['a file without end', () => ({ certificate: '/dev/zero' }), 'too-large'],
    ['a certificate in place of the key', () => ({ key: pki.path('server.pem') }), 'not-a-key'],
    ['a key of garbage', () => ({ key: '/dev/null' }), 'not-a-key'],
    ['a key behind a passphrase', () => ({ key: pki.path('locked.key') }), 'encrypted-key'],
    ["another certificate's key", () => ({ key: pki.path('client.key') }), 'key-mismatch'],
    ['a certificate that expired', () => at('expired'), 'expired'],
    ['a certificate that is not valid yet', () => at('future'), 'not-yet-valid'],
    ['an authority that expired', () => ({ clientCa: pki.path('old-ca.pem') }), 'expired'],
    ['an authority that is none', () => ({ clientCa: pki.path('server.key') }), 'not-a-certificate'],
  ]
  const at = (name: string) => ({ certificate: pki.path(`${name}.pem`), key: pki.path(`${name}.key`) })

  test.each(INVALID)('TLS_INVALID: %s, before anything is served or recorded', async (_, given, why) => {
    writeFileSync(pki.path('garbage.pem'), '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    writeFileSync(pki.path('disk.raw'), Buffer.alloc(4096))
    const store = await openMemoryStore()
    const { head } = store
    const tls = { ...at('server'), ...given() }
    const disks = [{ disk: 'vda', file: pki.path('disk.raw') }]
    await expect(serveNbd(store, { disks, tcp: { port: 0, tls } })).rejects.toMatchObject({
      code: 'TLS_INVALID',
      facts: { why, file: expect.any(String) },
      message: expect.stringMatching(/^nothing is served with TLS: \/\S* /),
    })
    expect([store.disks(), store.head]).toEqual([[], head])
    await store.close()
  })

  test('one authority of several that is valid is enough, and a chain is served as a whole', async () => {
    writeFileSync(pki.path('both.pem'), pki.pem('old-ca.pem') + pki.pem('ca.pem'))
    writeFileSync(pki.path('chain.pem'), pki.pem('server.pem') + pki.pem('ca.pem'))
    const files = { certificate: pki.path('chain.pem'), key: pki.path('server.key') }
    const tls = await readTls({ ...files, clientCa: pki.path('both.pem') })
    expect(tls.facts).toEqual({
      required: true,
      clientCertificates: true,
      expires: Date.UTC(2099, 0, 1),
    })
    writeFileSync(pki.path('stale.pem'), pki.pem('server.pem') + pki.pem('old-ca.pem'))
    await expect(readTls({ ...files, certificate: pki.path('stale.pem') })).rejects.toMatchObject({
      facts: { why: 'expired' },
    })
  })

  test.each([
    ['words', 'tls'],
    ['null', null],
    ['no certificate', { key: 'k' }],
    ['no key', { certificate: 'c' }],
    ['an empty path', { certificate: '', key: 'k' }],
    ['a certificate of bytes', { certificate: Buffer.alloc(1), key: 'k' }],
    ['a list of authorities', { certificate: 'c', key: 'k', clientCa: ['a'] }],
    ['required of words', { certificate: 'c', key: 'k', required: 'no' }],
    ['an authority that keeps nobody out', { certificate: 'c', key: 'k', clientCa: 'a', required: false }],
  ])('TypeError: tls of %s', async (_, tls) => {
    const store = await openMemoryStore()
    const options = { disks: [{ disk: 'vda', file: 'f' }], tcp: { port: 0, tls } }
    await expect(serveNbd(store, options as never)).rejects.toThrow(TypeError)
    await store.close()
  })
})

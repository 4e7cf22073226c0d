/** The NBD client behind TLS: with our own server and nbdkit's; and who is not believed, with the reason. */
import { randomFillSync } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { listNbd } from '../../src/nbd/client/list.ts'
import { describeWithPeers, peer } from '../support/peers.ts'
import { connected, GREETING, listOf, nbdkit, scripted, tuples } from './client-support.ts'
import { folder, MemoryExport, MiB, OPT, REP, serving } from './support.ts'
import { type Certificates, type DoorOptions, makeCertificates, tlsDoor } from './tls-support.ts'

let pki: Certificates
beforeAll(() => {
  if (peer('openssl') !== undefined) pki = makeCertificates()
}, 120_000)
afterAll(() => pki?.remove())

async function opened(options: DoorOptions = { checked: true }) {
  const disk = new MemoryExport('vda', 3 * MiB)
  randomFillSync(disk.bytes)
  const door = await tlsDoor(pki, [disk], options)
  return {
    ...door,
    disk,
    uri: (from: string, host = 'localhost') => `nbds://${host}:${door.port}/vda?tls-certificates=${from}`,
  }
}
const failed = (why: string, message = /./) => ({
  code: 'NBD_TLS_FAILED',
  message: expect.stringMatching(message),
  facts: expect.objectContaining({ why }),
})

describeWithPeers(['openssl'], 'TLS', () => {
  test('it reads, writes and lists behind TLS, by name and by address', async () => {
    const { disk, uri } = await opened()
    const right = pki.folder('ca', 'client')
    for (const host of ['localhost', '127.0.0.1']) {
      const client = await connected({ uri: uri(right, host) }, { contexts: ['qemu:dirty-bitmap:a'] })
      expect(client.info).toMatchObject({ tls: true, structured: true, size: 3 * MiB })
      await client.write(4096, Buffer.alloc(2 * MiB, 7), { fua: true })
      expect((await client.read(0, 3 * MiB)).equals(disk.bytes)).toBe(true)
      expect(tuples(await listOf(client.extents('qemu:dirty-bitmap:a', { length: 8192 })))).toEqual([
        [0, 4096, 0],
        [4096, 4096, 1],
      ])
      await client.close()
    }
    expect(await listNbd({ uri: uri(right) })).toHaveLength(1)
  })

  test('certificate and key can be named one by one, and no name be checked but the one that is given', async () => {
    const { port } = await opened({ checked: true, server: 'elsewhere' })
    const tls = { ca: pki.path('ca.pem'), certificate: pki.path('client.pem'), key: pki.path('client.key') }
    const target = { host: '127.0.0.1', port, name: 'vda' }
    await connected({ ...target, tls: { ...tls, hostname: 'elsewhere.example' } })
    await expect(connected({ ...target, tls })).rejects.toMatchObject(
      failed('certificate', /does not match|not in the cert/),
    )
    await connected({ ...target, tls: { ...tls, verify: false } })
  })

  test('who is not trusted, on either side', async () => {
    const { uri, port } = await opened()
    await expect(connected({ uri: uri(pki.folder('other-ca', 'client')) })).rejects.toMatchObject(
      failed('certificate', /verify|certificate/),
    )
    await expect(connected({ uri: uri(pki.folder('ca', null)) })).rejects.toMatchObject({
      code: 'NBD_TLS_FAILED',
    })
    await expect(connected({ uri: uri(pki.folder('ca', 'stranger')) })).rejects.toMatchObject({
      code: 'NBD_TLS_FAILED',
    })
    await expect(connected({ uri: `nbds://localhost:${port}/vda` })).rejects.toMatchObject(
      failed('certificate'),
    )
    await expect(connected({ uri: `nbd://localhost:${port}/vda` })).rejects.toMatchObject(
      failed('required', /nbds/),
    )
  })

  test('files that cannot be used', async () => {
    const { port } = await opened()
    const target = { host: 'localhost', port, name: 'vda' }
    const ca = pki.path('ca.pem')
    await expect(connected({ ...target, tls: { ca: '/none.pem' } })).rejects.toMatchObject(
      failed('files', /none\.pem/),
    )
    await expect(connected({ ...target, tls: { folder: folder() } })).rejects.toMatchObject(
      failed('files', /ca-cert\.pem/),
    )
    await expect(connected({ ...target, tls: { ca, certificate: ca } })).rejects.toMatchObject(
      failed('files', /together/),
    )
    const junk = join(folder(), 'junk.pem')
    writeFileSync(junk, 'junk')
    await expect(connected({ ...target, tls: { ca, certificate: junk, key: junk } })).rejects.toMatchObject(
      failed('files'),
    )
  })

  test('asked for TLS, nothing is sent in the clear: a server that has none is left', async () => {
    const options: number[] = []
    const { socket } = await scripted(async (peer) => {
      peer.send(GREETING)
      await peer.bytes(4)
      while (true) {
        const { option } = await peer.option()
        options.push(option)
        peer.reply(option, REP.unsupported)
      }
    })
    await expect(connected({ socket, tls: {} })).rejects.toMatchObject(failed('not-offered'))
    const own = await serving([new MemoryExport('vda', MiB)])
    await expect(connected({ socket: own.socket, name: 'vda', tls: {} })).rejects.toMatchObject(
      failed('not-offered'),
    )
    expect(options).toEqual([OPT.startTls])
  })

  test('what comes in the clear behind the agreement is not believed, and garbage in place of TLS ends it', async () => {
    const behind = (bytes: Uint8Array) =>
      scripted(async (peer) => {
        peer.send(GREETING)
        await peer.bytes(4)
        const { option } = await peer.option()
        peer.socket.cork()
        peer.reply(option, REP.ack)
        peer.send(bytes)
        peer.socket.uncork()
        await peer.bytes(1)
        peer.send(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'))
      })
    const injected = await behind(Buffer.from('0003e889045565a900000008', 'hex'))
    await expect(connected({ socket: injected.socket, tls: {} })).rejects.toMatchObject({
      code: 'NBD_PROTOCOL',
    })
    const garbage = await behind(Buffer.alloc(0))
    await expect(connected({ socket: garbage.socket, tls: {} })).rejects.toMatchObject(failed('certificate'))
  })

  test('a server that stops in the middle of TLS is left at the deadline', async () => {
    const { socket } = await scripted(async (peer) => {
      peer.send(GREETING)
      await peer.bytes(4)
      peer.reply((await peer.option()).option, REP.ack)
    })
    await expect(connected({ socket, tls: {} }, { handshakeMs: 100 })).rejects.toMatchObject({
      code: 'NBD_UNREACHABLE',
      facts: { why: 'deadline' },
    })
  })
})

describeWithPeers(['openssl', 'nbdkit'], "nbdkit's TLS", () => {
  test('on a Unix socket, where no name is checked unless one is given', async () => {
    const files = join(folder(), 'pki')
    mkdirSync(files)
    for (const [name, from] of [
      ['ca-cert', 'ca.pem'],
      ['server-cert', 'server.pem'],
      ['server-key', 'server.key'],
    ] as const)
      writeFileSync(join(files, `${name}.pem`), pki.pem(from))
    const { socket } = await nbdkit(
      '--tls=require',
      `--tls-certificates=${files}`,
      '--tls-verify-peer',
      'memory',
      '1M',
    )
    const mine = pki.folder('ca', 'client')
    const uri = `nbds+unix:///?socket=${socket}&tls-certificates=${mine}`
    const client = await connected({ uri })
    await client.write(5, Buffer.from('behind TLS'))
    expect((await client.read(5, 10)).toString()).toBe('behind TLS')
    await connected({ uri: `${uri}&tls-hostname=localhost` })
    await expect(connected({ uri: `${uri}&tls-hostname=other` })).rejects.toMatchObject(failed('certificate'))
    await expect(connected({ socket })).rejects.toMatchObject(failed('required'))
    await expect(connected({ socket, tls: { folder: pki.folder('ca', null) } })).rejects.toMatchObject({
      code: 'NBD_TLS_FAILED',
    })
  })
})

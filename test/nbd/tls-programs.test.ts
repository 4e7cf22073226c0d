/** TLS with programs that nobody here wrote (libnbd's and QEMU's, both with GnuTLS), and on the command line. */
import { execFile } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openStore } from '../../src/index.ts'
import { captured, slicelog } from '../cli/support.ts'
import { cli, folders } from '../owner/support.ts'
import { describeWithPeers, peer } from '../support/peers.ts'
import { MemoryExport, MiB } from './support.ts'
import { type Certificates, type DoorOptions, makeCertificates, tlsDoor } from './tls-support.ts'

const execute = promisify(execFile)
const run = async (program: string, ...args: string[]): Promise<string> =>
  (await execute(program, args, { encoding: 'utf8', timeout: 60_000 })).stdout

let pki: Certificates
/** Of who may come in; without a certificate of one's own; of another authority; one that trusts another. */
let right: string
let bare: string
let stranger: string
let mistrusting: string
beforeAll(() => {
  if (peer('openssl') === undefined) return
  pki = makeCertificates()
  right = pki.folder('ca', 'client')
  bare = pki.folder('ca', null)
  stranger = pki.folder('ca', 'stranger')
  mistrusting = pki.folder('other-ca', 'client')
}, 120_000)
afterAll(() => pki?.remove())

const SIZE = 4 * MiB + 1
async function opened(options: DoorOptions = { checked: true }) {
  const disk = new MemoryExport('vda', SIZE, false, 'the first disk')
  randomFillSync(disk.bytes)
  const door = await tlsDoor(pki, [disk], options)
  return {
    ...door,
    disk,
    uri: (folder: string, host = 'localhost') => `nbds://${host}:${door.port}/vda?tls-certificates=${folder}`,
    qemu: (folder: string) => [
      ...['--object', `tls-creds-x509,id=tls0,endpoint=client,dir=${folder},verify-peer=yes`],
      '--image-opts',
      `driver=nbd,server.type=inet,server.host=localhost,server.port=${door.port},export=vda,tls-creds=tls0`,
    ],
  }
}

describeWithPeers(['openssl', 'nbdinfo', 'nbdcopy'], 'libnbd over TLS', () => {
  test('nbdinfo sees the export and its maps behind TLS, by name and by address', async () => {
    const { uri, told } = await opened()
    for (const host of ['localhost', '127.0.0.1']) {
      const info = JSON.parse(await run('nbdinfo', '--json', uri(right, host)))
      expect(info).toMatchObject({ protocol: 'newstyle-fixed', TLS: true, structured: true })
      expect(info.exports[0]).toMatchObject({ 'export-name': 'vda', 'export-size': SIZE })
    }
    const map = JSON.parse(await run('nbdinfo', '--json', '--map=qemu:dirty-bitmap:b', uri(right)))
    expect(map.length).toBeGreaterThan(1000)
    expect(told).toEqual([])
  })

  test('nbdcopy moves every byte out and in again', async () => {
    const { uri, disk } = await opened()
    const bytes = Buffer.from(disk.bytes)
    await run('nbdcopy', uri(right), pki.path('out.raw'))
    expect(readFileSync(pki.path('out.raw')).equals(bytes)).toBe(true)
    disk.bytes.fill(0)
    await run('nbdcopy', pki.path('out.raw'), uri(right))
    expect(disk.bytes.equals(bytes)).toBe(true)
  })

  test.each([
    ['no certificate of its own', () => bare, 'server', 'nbds'],
    ['a certificate of another authority', () => stranger, 'server', 'nbds'],
    ['trust in another authority alone', () => mistrusting, 'server', 'nbds'],
    ['trust in another name', () => right, 'elsewhere', 'nbds'],
    ['no TLS', () => right, 'server', 'nbd'],
  ] as const)(
    'a client with %s does not come in, and the next one does',
    async (_, folder, server, scheme) => {
      const { port, uri, disk, counts } = await opened({ checked: true, server })
      const wrong = `${scheme}://localhost:${port}/vda${scheme === 'nbd' ? '' : `?tls-certificates=${folder()}`}`
      await expect(run('nbdinfo', wrong)).rejects.toThrow(/TLS|gnutls|certificate|handshake|not supported/i)
      await expect(run('nbdcopy', wrong, pki.path('x'))).rejects.toThrow()
      expect(disk.calls).toEqual([])
      if (server === 'server') expect(await run('nbdinfo', '--size', uri(right))).toBe(`${SIZE}\n`)
      while (counts().connected > 0) await sleep(5)
    },
  )
})

describeWithPeers(['openssl', 'qemu-img', 'qemu-io'], 'QEMU over TLS', () => {
  test('qemu-img looks and converts, qemu-io writes and reads back, behind TLS', async () => {
    const { qemu, disk, told } = await opened()
    const info = JSON.parse(await run('qemu-img', 'info', '--output=json', ...qemu(right)))
    expect(info).toMatchObject({ 'virtual-size': expect.any(Number) })
    const bytes = Buffer.from(disk.bytes)
    await run('qemu-img', 'convert', ...qemu(right), '-O', 'raw', pki.path('converted.raw'))
    expect(readFileSync(pki.path('converted.raw')).subarray(0, SIZE).equals(bytes)).toBe(true)
    const io = await run('qemu-io', ...qemu(right), '-c', 'write -P 7 1k 3k', '-c', 'read -P 7 2k 1k')
    expect(io).not.toMatch(/failed|error/i)
    expect(disk.bytes.subarray(1024, 4096).equals(Buffer.alloc(3072, 7))).toBe(true)
    expect(told).toEqual([])
  })

  test.each([
    ['no certificate of its own', () => bare],
    ['a certificate of another authority', () => stranger],
    ['trust in another authority alone', () => mistrusting],
  ])('a client with %s does not come in, and the next one does', async (_, folder) => {
    const { qemu, disk } = await opened()
    await expect(run('qemu-img', 'info', ...qemu(folder()))).rejects.toThrow(
      /TLS|certificate|handshake|Failed to|server/i,
    )
    expect(disk.calls).toEqual([])
    await run('qemu-img', 'info', ...qemu(right))
  })

  test('a client without TLS is told that it is required', async () => {
    const { port, disk } = await opened()
    await expect(run('qemu-img', 'info', `nbd://localhost:${port}/vda`)).rejects.toThrow(
      /TLS|STARTTLS|requires/i,
    )
    expect(disk.calls).toEqual([])
  })
})

describe('slicelog serve with TLS', () => {
  const { path } = folders()
  let made = 0
  async function newStore() {
    const store = path(`store-${++made}`)
    await (await openStore(store)).close()
    const file = path(`disk-${made}.raw`)
    writeFileSync(file, Buffer.alloc(MiB))
    return { store, disk: ['--disk', `vm/a=${file}`] }
  }
  const tls = () => [
    ...['--tls-certificate', pki.path('server.pem')],
    ...['--tls-key', pki.path('server.key')],
  ]

  test.each([
    ['a certificate without a key', ['--nbd', 'tcp:0', '--tls-certificate', 'c']],
    ['a key without a certificate', ['--nbd', 'tcp:0', '--tls-key', 'k']],
    ['an authority alone', ['--nbd', 'tcp:0', '--tls-client-ca', 'a']],
    ['no TCP door', ['--tls-certificate', 'c', '--tls-key', 'k']],
    ['a Unix door alone', ['--nbd', 'unix:s', '--tls-certificate', 'c', '--tls-key', 'k']],
    ['an empty path', ['--nbd', 'tcp:0', '--tls-certificate', '', '--tls-key', 'k']],
  ])('2: %s', async (_, words) => {
    const { store, disk } = await newStore()
    const ran = await slicelog(['--store', store, 'serve', ...disk, ...words, '--json'], captured())
    expect([ran.code, ran.out, ran.error().code]).toEqual([2, '', 'USAGE'])
  })

  test('1: a certificate that is not there, and the disk is not even added', async () => {
    const { store, disk } = await newStore()
    const words = ['--nbd', 'tcp:0', '--tls-certificate', path('none'), '--tls-key', path('none'), '--json']
    const ran = await slicelog(['--store', store, 'serve', ...disk, ...words], captured())
    expect([ran.code, ran.out, ran.error().code]).toEqual([1, '', 'TLS_INVALID'])
    const { out } = await slicelog(['--store', store, 'disk', 'ls', '--json'], captured())
    expect(JSON.parse(out)).toEqual({ disks: [] })
  })

  describeWithPeers(['openssl'], 'and certificates', () => {
    /** What it says until it is stopped. */
    async function said(...words: string[]) {
      const { store, disk } = await newStore()
      const io = captured()
      const running = slicelog(['--store', store, 'serve', ...disk, ...words], io)
      while (!io.text.out.includes('\n')) await sleep(10)
      io.interrupt()
      return await running
    }
    const OPEN = 'slicelog: whoever reaches 0.0.0.0:0 reads and writes these disks: '

    test('who serves to others than this machine is warned, until only certified clients are let in', async () => {
      const door = ['--nbd', 'tcp:0.0.0.0:0']
      const authority = ['--tls-client-ca', pki.path('ca.pem')]
      expect((await said(...door)).err).toContain(
        `${OPEN}there is no TLS and no password. Give --tls-certificate, --tls-key and --tls-client-ca.\n`,
      )
      expect((await said(...door, ...tls())).err).toContain(
        `${OPEN}TLS hides what is sent, and keeps nobody out. Give --tls-client-ca.\n`,
      )
      expect((await said(...door, ...tls(), ...authority)).err).not.toContain('whoever')
      for (const own of ['tcp:0', 'tcp:localhost:0', 'tcp:127.0.0.1:0'])
        expect((await said('--nbd', own)).err).not.toContain('whoever')
    })

    test('people are told what to paste, who may come in, and when the certificate ends', async () => {
      const { code, out } = await said('--nbd', 'tcp:0', ...tls(), '--tls-client-ca', pki.path('ca.pem'))
      expect(code).toBe(0)
      expect(out).toMatch(/ {2}nbds:\/\/127\.0\.0\.1:\d+\/vm\/a\n/)
      expect(out).toMatch(/nbdinfo --list 'nbds:\/\/127\.0\.0\.1:\d+\/vm\/a\?tls-certificates=DIR'/)
      expect(out).toMatch(/TLS +only clients with a certificate, on TCP;.* 2099-01-01 00:00:00\.000Z/s)
    })
  })

  describeWithPeers(['openssl', 'nbdinfo'], 'and nbdinfo', () => {
    test('as a process: the first line has the facts and a URI that works', async () => {
      const { store, disk } = await newStore()
      const words = ['--nbd', 'tcp:0', ...tls(), '--tls-client-ca', pki.path('ca.pem'), '--bitmap', 'b']
      const served = cli(['--store', store, 'serve', '--json', ...disk, ...words])
      while (!served.text.out.includes('\n') && served.child.exitCode === null) await sleep(10)
      const ready = JSON.parse(served.text.out.split('\n')[0]!)
      expect(ready.nbd).toEqual({
        socket: null,
        tcp: {
          host: '127.0.0.1',
          port: expect.any(Number),
          tls: { required: true, 'client-certificates': true, expires: Date.UTC(2099, 0, 1) },
        },
      })
      const [uri] = ready.disks[0].uris as string[]
      expect(uri).toBe(`nbds://127.0.0.1:${ready.nbd.tcp.port}/vm/a`)
      for (let i = 0; i < 2; i++)
        await expect(run('nbdinfo', `${uri}?tls-certificates=${bare}`)).rejects.toThrow(/TLS|gnutls/i)
      const map = await run('nbdinfo', '--map=qemu:dirty-bitmap:b', `${uri}?tls-certificates=${right}`)
      expect(map).toMatch(/0 +1048576 +0 +clean/)
      served.child.kill('SIGTERM')
      const { code, err } = await served.ended
      expect([code, err]).toEqual([0, ''])
    })

    test('who is kept out is told with the reason, once, and the next client comes in', async () => {
      const { store, disk } = await newStore()
      const io = captured()
      const words = ['--nbd', 'tcp:0', ...tls(), '--tls-client-ca', pki.path('ca.pem')]
      const running = slicelog(['--store', store, 'serve', ...disk, ...words], io)
      while (!io.text.out.includes('nbds://')) await sleep(10)
      const uri = /nbds:\/\/\S+/.exec(io.text.out)![0]
      for (let i = 0; i < 3; i++)
        await expect(run('nbdinfo', `${uri}?tls-certificates=${bare}`)).rejects.toThrow(/TLS|gnutls/i)
      expect(await run('nbdinfo', '--size', `${uri}?tls-certificates=${right}`)).toBe(`${MiB}\n`)
      io.interrupt()
      const { code, err } = await running
      expect([code, err.match(/a client was refused: TLS handshake: .*/g)]).toEqual([
        0,
        ['a client was refused: TLS handshake: peer did not return a certificate'],
      ])
    })
  })
})

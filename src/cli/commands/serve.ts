/** `serve`: raw files as disks over NBD, every write tracked, until Ctrl-C or SIGTERM. */
import { join } from 'node:path'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { CheckpointError, type ErrorCode, messageOf } from '../../errors.ts'
import { type NbdDiskOptions, type ServedNbd, serveNbd } from '../../nbd/serve.ts'
import type { NbdTlsFiles } from '../../nbd/tls.ts'
import type { OnLogError } from '../../nbd/without-log.ts'
import { openStore } from '../../owner/open.ts'
import type { Store } from '../../store/store.ts'
import type { Durability } from '../../store/types.ts'
import { UsageError } from '../exit.ts'
import { withExamples } from '../help.ts'
import { parsePositiveCount } from '../parse.ts'
import { statusLine } from '../render/status-line.ts'
import * as text from '../render/text.ts'
import { countsShape, type LostOf, rates, ready, readyShape, totals } from '../serving.ts'
import type { Session } from '../session.ts'

/** In the store's folder, where no door is named. */
const SOCKET_NAME = 'nbd.sock'
/** On a terminal; elsewhere only who asks for status lines gets them. */
const TERMINAL_EVERY_MS = 1000
const SECONDS_MAX = 86_400
/** An address of a Unix socket has 108 bytes, with the final zero. */
const CLIENT_PATH_BYTES_MAX = 107

interface DiskFile {
  readonly disk: string
  readonly file: string
}

interface Doors {
  readonly socket?: string
  readonly tcp?: { readonly host: string; readonly port: number }
}

interface ServeOptions {
  readonly disk?: readonly DiskFile[]
  readonly nbd?: Doors
  readonly durability: Durability
  readonly bitmap?: string
  readonly readOnly?: boolean
  readonly tlsCertificate?: string
  readonly tlsKey?: string
  readonly tlsClientCa?: string
  readonly every?: number
  readonly freeze?: string
  readonly thaw?: string
  readonly freezeTimeout?: number
  readonly onLogError: OnLogError
}

export function serveCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('serve')
      .description(
        'serve raw files and block devices as disks over NBD and track every write, until Ctrl-C or SIGTERM',
      )
      .option('--disk <disk=file>', 'a disk and its raw file or block device; again for more', collectDisk)
      .option(
        '--nbd <door>',
        `unix:PATH, tcp:PORT or tcp:HOST:PORT; again for one of each (default: ${SOCKET_NAME} in the store's folder)`,
        collectDoor,
      )
      .option('--tls-certificate <file>', "TLS, required on the TCP door: the server's certificate (PEM)")
      .option('--tls-key <file>', 'its key (PEM, without a passphrase)')
      .option('--tls-client-ca <file>', 'let in only clients with a certificate that this one signed (PEM)')
      .option('--bitmap <name>', 'add this bitmap to each disk that has none of that name')
      .option('--read-only', 'refuse every write')
      .addOption(
        new Option(
          '--durability <level>',
          'power: no byte changes before its record survives a power cut; process: before it survives our end',
        )
          .choices(['process', 'power'])
          .default('power'),
      )
      .addOption(
        new Option(
          '--on-log-error <what>',
          'when the log cannot be written. stop: writes fail; continue: they go on unrecorded, and are told as lost',
        )
          .choices(['stop', 'continue'])
          .default('stop'),
      )
      .option(
        '--freeze <command>',
        'run by /bin/sh before each point (backup begun, bank, checkpoint) of a disk',
      )
      .option(
        '--thaw <command>',
        'run after it, whatever became of it; in both $SLICELOG_DISK says whose guest',
      )
      .option('--freeze-timeout <seconds>', 'for each of the two (default: 30)', parseSeconds)
      .option('--every <seconds>', 'a line of status so often (default: 1 on a terminal)', parseSeconds),
    [
      'slicelog --store ./state serve --disk vm-17/vda=/srv/vda.raw --bitmap daily',
      'slicelog --store ./state serve --disk vda=a.raw --disk vdb=b.raw --nbd unix:/run/vm-17.sock --json',
      "slicelog --store ./state serve --disk vda=a.raw --freeze 'virsh domfsfreeze vm-17' --thaw 'virsh domfsthaw vm-17'",
      "nbdinfo --map=qemu:dirty-bitmap:daily 'nbd+unix:///vm-17/vda?socket=state/nbd.sock'",
    ],
  ).action((options: ServeOptions) => serve(session, options))
}

/** `DISK=FILE`, parted at the first `=`. */
export function collectDisk(words: string, before: readonly DiskFile[] = []): readonly DiskFile[] {
  const at = words.indexOf('=')
  if (at < 1 || at === words.length - 1)
    throw new InvalidArgumentError(`"${words}" is no disk; give DISK=FILE such as vm-17/vda=/srv/vda.raw.`)
  return [...before, { disk: words.slice(0, at), file: words.slice(at + 1) }]
}

/** One door of each kind. An IPv6 address stands in brackets. */
export function collectDoor(words: string, before: Doors = {}): Doors {
  const unix = /^unix:(.+)$/s.exec(words)?.[1]
  const [, host, ipv6, port] = /^tcp:(?:(?:([^:[\]]+)|\[([0-9a-f:.]+)\]):)?(\d{1,5})$/i.exec(words) ?? []
  if (unix === undefined && (port === undefined || Number(port) > 65_535))
    throw new InvalidArgumentError(
      `"${words}" is no door; give unix:PATH, tcp:PORT or tcp:HOST:PORT, such as unix:/run/vda.sock.`,
    )
  if (unix === undefined ? before.tcp !== undefined : before.socket !== undefined)
    throw new InvalidArgumentError('One door of each kind, please.')
  return unix === undefined
    ? { ...before, tcp: { host: host ?? ipv6 ?? '127.0.0.1', port: Number(port) } }
    : { ...before, socket: unix }
}

function parseSeconds(words: string): number {
  const seconds = parsePositiveCount(words)
  if (seconds > SECONDS_MAX) throw new InvalidArgumentError(`It must be ${SECONDS_MAX} (a day) or less.`)
  return seconds
}

async function serve(session: Session, options: ServeOptions): Promise<void> {
  const disks = disksOf(session, options)
  const tls = tlsOf(session, options)
  if (session.options.commandId !== undefined) throw new UsageError('serve takes no --command-id: it serves.')
  await session.withFolder(
    async (folder) => {
      const store = await openStore(folder, {
        create: false,
        actor: session.options.actor ?? 'cli',
        durability: options.durability,
        socket: true,
      })
      try {
        await whileServed(session, store, folder, disks, options, tls)
      } finally {
        await store.close()
      }
    },
    async () => {
      const { pid } = session.owner!
      throw new CheckpointError(
        'STORE_IN_USE',
        `process ${pid} has the store open, and disks are served by the store's owner: end that process first, or have it call serveNbd`,
        { heldBy: { pid } },
      )
    },
  )
}

function disksOf(session: Session, options: ServeOptions): NbdDiskOptions[] {
  const { disk: given, bitmap, readOnly } = options
  if (given === undefined) throw new UsageError('Which disks? Give --disk DISK=FILE, once or more.')
  const ids = given.map(({ disk }) => disk)
  const twice = ids.find((id, i) => ids.indexOf(id) < i)
  if (twice !== undefined) throw new UsageError(`--disk "${twice}" is given twice.`, { disk: twice })
  return given.map(({ disk, file }) => ({
    disk,
    file: session.path(file),
    readOnly: readOnly === true,
    ...(bitmap === undefined ? {} : { bitmap }),
    onLogError: options.onLogError,
    ...freezingOf(options),
  }))
}

function freezingOf({
  freeze,
  thaw,
  freezeTimeout,
}: ServeOptions): Pick<NbdDiskOptions, 'freeze' | 'thaw' | 'freezeTimeoutMs'> {
  if ((freeze === undefined) !== (thaw === undefined))
    throw new UsageError('Give both --freeze and --thaw, or none: nobody would undo the one.')
  if (freeze === undefined || thaw === undefined) {
    if (freezeTimeout !== undefined) throw new UsageError('--freeze-timeout needs --freeze and --thaw.')
    return {}
  }
  if (freeze.trim() === '' || thaw.trim() === '')
    throw new UsageError('--freeze and --thaw take a command, not empty words.')
  return { freeze, thaw, ...(freezeTimeout === undefined ? {} : { freezeTimeoutMs: freezeTimeout * 1000 }) }
}

async function whileServed(
  session: Session,
  store: Store,
  folder: string,
  disks: readonly NbdDiskOptions[],
  options: ServeOptions,
  tls: NbdTlsFiles | undefined,
): Promise<void> {
  const doors = options.nbd ?? { socket: join(folder, SOCKET_NAME) }
  if (doors.tcp !== undefined) sayOpen(session, doors.tcp, tls)
  session.signal.throwIfAborted()
  const line = statusLine(session.io.stderr)
  const lostBefore = new Map(store.disks().map(({ disk, lost }) => [disk, lost.length]))
  const served = await serveNbd(store, {
    disks,
    ...(doors.socket === undefined ? {} : { socket: session.path(doors.socket) }),
    ...(doors.tcp === undefined ? {} : { tcp: { ...doors.tcp, ...(tls === undefined ? {} : { tls }) } }),
    onError: sayErrors(session, () => line.clear()),
  })
  try {
    const lost = (disk: string) => store.diskInfo(disk).lost.slice(lostBefore.get(disk) ?? 0)
    await session.answer(readyShape(served, options.durability, lost), () =>
      ready(session.paint, served, options),
    )
    sayLost(session, served, lost)
    sayTooLong(session, served)
    session.endsWhenStopped()
    await untilStopped(session, served, line, options.every)
  } finally {
    line.clear()
    await served.close()
  }
  await session.answer({ stopped: true, ...countsShape(served) }, () => `Stopped. ${totals(served)}`)
}

function tlsOf(session: Session, options: ServeOptions): NbdTlsFiles | undefined {
  const { tlsCertificate: certificate, tlsKey: key, tlsClientCa: clientCa } = options
  if (certificate === undefined && key === undefined && clientCa === undefined) return undefined
  if (certificate === undefined || key === undefined)
    throw new UsageError('TLS needs both --tls-certificate and --tls-key.')
  if (options.nbd?.tcp === undefined)
    throw new UsageError('TLS is for a TCP door, and there is none: give --nbd tcp:PORT or tcp:HOST:PORT.')
  return {
    certificate: session.path(certificate),
    key: session.path(key),
    ...(clientCa === undefined ? {} : { clientCa: session.path(clientCa) }),
  }
}

/** Who may come in from elsewhere, where that is anybody. */
function sayOpen(
  session: Session,
  { host, port }: NonNullable<Doors['tcp']>,
  tls: NbdTlsFiles | undefined,
): void {
  if (isLoopback(host) || tls?.clientCa !== undefined) return
  const why =
    tls === undefined
      ? 'there is no TLS and no password. Give --tls-certificate, --tls-key and --tls-client-ca'
      : 'TLS hides what is sent, and keeps nobody out. Give --tls-client-ca'
  session.note(`slicelog: whoever reaches ${host}:${port} reads and writes these disks: ${why}.`)
}

/** Found when the disk was attached (R32, R35). */
function sayLost(session: Session, served: ServedNbd, lost: LostOf): void {
  for (const { disk } of served.disks)
    if (lost(disk).length > 0)
      session.note(
        `slicelog: writes to ${disk} may have gone unrecorded: ${text.lost(lost(disk))}. Maps that reach back before that cover the whole disk.`,
      )
}

function sayTooLong(session: Session, { socket }: ServedNbd): void {
  if (socket !== null && Buffer.byteLength(socket) > CLIENT_PATH_BYTES_MAX)
    session.note(
      `slicelog: most clients take no socket path of more than ${CLIENT_PATH_BYTES_MAX} bytes; give a shorter one: --nbd unix:PATH.`,
    )
}

/** Not what a client was answered, which it knows. */
const LOUD: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'THAW_FAILED',
  'WRITES_UNRECORDED',
  'SERVED_FILE_INVALID',
])

function sayErrors(session: Session, before: () => void): (error: unknown) => void {
  const refused = sayOnce((words) => {
    before()
    session.note(`slicelog: a client was refused: ${words}`)
  })
  return (error) => {
    if (!(error instanceof CheckpointError && LOUD.has(error.code))) return refused(error)
    before()
    sayLoud(session, error)
  }
}

/** Somebody has to act, each time: also where a program reads the answers. */
function sayLoud(session: Session, { code, message, facts }: CheckpointError): void {
  if (session.options.json === true)
    session.io.stderr.write(`${JSON.stringify({ error: { code, message, facts } })}\n`)
  else session.note(`slicelog: ${message}`)
}

/** A log that failed refuses every write that comes: each reason is told once. */
function sayOnce(say: (words: string) => void): (error: unknown) => void {
  const said = new Set<string>()
  return (error) => {
    const words = messageOf(error)
    if (said.has(words) || said.size > 100) return
    said.add(words)
    say(words)
  }
}

async function untilStopped(
  session: Session,
  served: ServedNbd,
  line: ReturnType<typeof statusLine>,
  every: number | undefined,
): Promise<void> {
  const json = session.options.json === true
  const shows = every !== undefined || (line.shows && !json)
  let before = { ...served.counts(), at: performance.now() }
  const tick = async (): Promise<void> => {
    const now = { ...served.counts(), at: performance.now() }
    const words = rates(before, now)
    before = now
    if (json) await session.print(JSON.stringify(countsShape(served)))
    else if (line.shows) line.show(words)
    else await session.print(words)
  }
  // Waiting for clients would otherwise let Node end, should every door be closed by then.
  const ticking = setInterval(
    () => {
      // Whoever reads no more has said so to the session, which then stops.
      if (shows) void tick().catch(() => undefined)
    },
    every === undefined ? TERMINAL_EVERY_MS : every * 1000,
  )
  try {
    const { signal } = session
    if (!signal.aborted)
      await new Promise<void>((done) => signal.addEventListener('abort', () => done(), { once: true }))
  } finally {
    clearInterval(ticking)
  }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)
}

/**
 * The library's way to serve disks over NBD: raw files, each tracked by the store, behind one server (R30, R31, R35).
 *
 * Puts the parts together and owns their order: every file is opened and its disk attached before anybody can connect, and at the
 * end clients go first, then each file is made durable and its disk detached. Costs nothing of its own per request.
 */
import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { CheckpointError } from '../errors.ts'
import { coreOf, needStore, type Store } from '../store/store.ts'
import type { NbdExport, NbdExports } from './export.ts'
import { FREEZE_TIMEOUT_MS, type FreezeHow, GuestFreeze } from './guest-freeze.ts'
import { ServedDisk, type ServedDiskOptions } from './served-disk.ts'
import { listenNbd, type NbdCounts, type NbdServer, type NbdTcpDoor } from './server.ts'
import { checkTlsFiles, type NbdTlsFiles, readTls } from './tls.ts'

/** Node's timers fire at once beyond that. */
const TIMER_MS_MAX = 2 ** 31 - 1

export interface NbdDiskOptions extends ServedDiskOptions {
  /** A bitmap that is added, with the default granularity, where the disk has none of that name. */
  readonly bitmap?: string
  /**
   * What freezes and thaws whoever writes to the disk, around each of its points: begins of backups, banks, and all checkpoints.
   * Both or none. Words are run by /bin/sh, with SLICELOG_DISK, SLICELOG_FILE, SLICELOG_COMMAND (what takes the point) and
   * SLICELOG_NTH (1 for the first disk of the point). A freeze that fails refuses the point (FREEZE_FAILED), a thaw that fails is
   * told to `onError` (THAW_FAILED).
   */
  readonly freeze?: FreezeHow
  readonly thaw?: FreezeHow
  /** Time for each of the two, ms. Default 30 000. */
  readonly freezeTimeoutMs?: number
}

export interface ServeNbdOptions {
  /** At least one. Names, disks and files must differ. */
  readonly disks: readonly NbdDiskOptions[]
  /** Path of a Unix socket; only its user may connect (0600). This, `tcp`, or both. */
  readonly socket?: string
  /** `host` is 127.0.0.1 unless given: whoever reaches it reads and writes, unless `tls` has a `clientCa`. Port 0: any free one. */
  readonly tcp?: { readonly host?: string; readonly port: number; readonly tls?: NbdTlsFiles }
  /**
   * Told of each failure that a client was answered with (EIO, ENOSPC, …), of each client that TLS kept out, of each thaw that failed,
   * and of a disk that goes on without a log; without it the last two are warnings of the process. Must not throw.
   */
  readonly onError?: (error: unknown) => void
}

/** One disk, as clients find it. */
export interface NbdServed {
  readonly name: string
  readonly disk: string
  /** Absolute. */
  readonly file: string
  readonly size: number
  readonly readOnly: boolean
  /** To paste behind `qemu-img info`, `nbdinfo`, `-drive file=`: one for each door. */
  readonly uris: readonly string[]
}

export interface ServedNbd {
  readonly disks: readonly NbdServed[]
  /** Absolute; null without one. */
  readonly socket: string | null
  readonly tcp: NbdTcpDoor | null
  counts(): NbdCounts
  /** Clients' requests under way end, then their connections; files and log are made durable; the disks are detached. Idempotent. */
  close(): Promise<void>
}

/**
 * Serves disks until `close` is called or the store is closed. A disk that the store does not know is added with its file's size.
 * @throws CheckpointError TLS_INVALID, SERVED_FILE_INVALID, DISK_SIZE_MISMATCH (R35), IO_FAILED, ADDRESS_IN_USE; TypeError for options that
 * cannot be meant (no disk, no door, the same disk or file twice)
 */
export async function serveNbd(store: Store, options: ServeNbdOptions): Promise<ServedNbd> {
  needStore(store)
  checkOptions(options)
  await refuseSameFile(options.disks)
  const tcp = await tcpOf(options)
  const disks: ServedDisk[] = []
  try {
    for (const disk of options.disks) disks.push(await openDisk(store, disk, teller(options)))
    const socket = options.socket === undefined ? undefined : resolve(options.socket)
    const server = await listenNbd({
      exports: exportsOf(disks),
      ...(socket === undefined ? {} : { socket }),
      ...tcp,
      ...(options.onError === undefined ? {} : { onError: options.onError }),
    })
    return servedBy(store, server, disks, options.disks, freezeAround(store, options))
  } catch (error) {
    await Promise.allSettled(disks.map((disk) => disk.close()))
    throw error
  }
}

/** Returns what ends it: points under way come to their end, with the guest thawed. */
function freezeAround(store: Store, options: ServeNbdOptions): () => Promise<void> {
  const ends = options.disks.flatMap(({ disk, file, freeze, thaw, freezeTimeoutMs = FREEZE_TIMEOUT_MS }) => {
    if (freeze === undefined || thaw === undefined) return []
    const guest = new GuestFreeze({
      file: resolve(file),
      freeze,
      thaw,
      timeoutMs: freezeTimeoutMs,
      onError: teller(options),
    })
    const forget = coreOf(store).aroundPoints.add(disk, guest)
    return [
      async () => {
        forget()
        await guest.end()
      },
    ]
  })
  return async () => void (await Promise.all(ends.map((end) => end())))
}

async function tcpOf({ tcp }: ServeNbdOptions) {
  if (tcp === undefined) return {}
  const { tls, ...where } = tcp
  return { tcp: { ...where, ...(tls === undefined ? {} : { tls: await readTls(tls) }) } }
}

/** Somebody has to act: without anybody to tell, the process warns. */
function teller({ onError }: ServeNbdOptions): (error: CheckpointError) => void {
  return onError ?? ((error) => process.emitWarning(error.message, { code: error.code }))
}

async function openDisk(
  store: Store,
  { bitmap, ...options }: NbdDiskOptions,
  tell: (error: CheckpointError) => void,
): Promise<ServedDisk> {
  const disk = await ServedDisk.open(store, options, tell)
  try {
    if (bitmap !== undefined) await store.disk(options.disk).ensureBitmap(bitmap)
    return disk
  } catch (error) {
    await disk.close()
    throw error
  }
}

function servedBy(
  store: Store,
  server: NbdServer,
  disks: readonly ServedDisk[],
  options: readonly NbdDiskOptions[],
  endFreezing: () => Promise<void>,
): ServedNbd {
  const end = async (): Promise<void> => {
    // A guest that freezes writes its caches back: it is served until then.
    await endFreezing()
    await server.close()
    const ended = await Promise.allSettled(disks.map((disk) => disk.close()))
    forget()
    for (const one of ended) if (one.status === 'rejected') throw one.reason
  }
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => {
    closing ??= end()
    return closing
  }
  const forget = store.beforeClose(close)
  return {
    disks: disks.map(({ name, disk, size, readOnly }, i) => ({
      name,
      disk,
      file: resolve(options[i]!.file),
      size,
      readOnly,
      uris: urisOf(server, name),
    })),
    socket: server.socket,
    tcp: server.tcp,
    counts: () => server.counts(),
    close,
  }
}

/** No name asks for the only one there is. */
function exportsOf(disks: readonly NbdExport[]): NbdExports {
  const byName = new Map(disks.map((disk) => [disk.name, disk]))
  const only = disks.length === 1 ? disks[0] : undefined
  return { list: () => disks, find: (name) => byName.get(name) ?? (name === '' ? only : undefined) }
}

/** By the document that libnbd and QEMU follow (doc/uri.md of NBD). */
function urisOf({ socket, tcp }: Pick<NbdServer, 'socket' | 'tcp'>, name: string): string[] {
  const path = escaped(name)
  const uris: string[] = []
  if (socket !== null) uris.push(`nbd+unix:///${path}?socket=${escaped(socket)}`)
  if (tcp !== null)
    uris.push(
      `${tcp.tls === null ? 'nbd' : 'nbds'}://${tcp.host.includes(':') ? `[${tcp.host}]` : tcp.host}:${tcp.port}/${path}`,
    )
  return uris
}

/** Also of the quote, so that a URI can stand in a shell's. */
function escaped(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/').replaceAll("'", '%27')
}

function checkOptions(options: unknown): asserts options is ServeNbdOptions {
  const need = (right: boolean, what: string): void => {
    if (!right) throw new TypeError(what)
  }
  need(typeof options === 'object' && options !== null, 'the options must be an object')
  const { disks, socket, tcp, onError } = options as Record<string, unknown>
  need(Array.isArray(disks) && disks.length > 0, 'disks must be a list with a disk to serve')
  need(socket === undefined || (typeof socket === 'string' && socket !== ''), 'socket must be a path')
  need(tcp === undefined || isTcp(tcp), 'tcp must be { host?, port, tls? }, with a port from 0 to 65535')
  checkTlsFiles((tcp as { readonly tls?: unknown } | undefined)?.tls)
  need(socket !== undefined || tcp !== undefined, 'nobody could connect: give socket, tcp, or both')
  need(onError === undefined || typeof onError === 'function', 'onError must be a function')
  const ids = new Set<string>()
  const names = new Set<string>()
  for (const disk of disks as unknown[]) {
    checkDisk(disk)
    const name = disk.name ?? disk.disk
    need(!ids.has(disk.disk), `disk "${disk.disk}" is given twice`)
    need(!names.has(name), `two disks would be served as "${name}"`)
    ids.add(disk.disk)
    names.add(name)
  }
}

function checkDisk(disk: unknown): asserts disk is NbdDiskOptions {
  if (typeof disk !== 'object' || disk === null)
    throw new TypeError('a disk to serve must be { disk, file, … }')
  const { disk: id, file, name, description, bitmap, readOnly } = disk as Record<string, unknown>
  for (const [what, value] of Object.entries({ disk: id, file }))
    if (typeof value !== 'string' || value === '') throw new TypeError(`${what} must be a string, not empty`)
  for (const [what, value] of Object.entries({ name, description, bitmap }))
    if (value !== undefined && typeof value !== 'string') throw new TypeError(`${what} must be a string`)
  if (readOnly !== undefined && typeof readOnly !== 'boolean')
    throw new TypeError('readOnly must be a boolean')
  const { onLogError } = disk as Record<string, unknown>
  if (onLogError !== undefined && onLogError !== 'stop' && onLogError !== 'continue')
    throw new TypeError('onLogError must be "stop" or "continue"')
  checkFreeze(disk as Record<string, unknown>)
}

function checkFreeze({ disk, freeze, thaw, freezeTimeoutMs: ms }: Record<string, unknown>): void {
  for (const [what, how] of Object.entries({ freeze, thaw }))
    if (how !== undefined && typeof how !== 'function' && (typeof how !== 'string' || how.trim() === ''))
      throw new TypeError(`${what} must be a command for /bin/sh, or a function`)
  if ((freeze === undefined) !== (thaw === undefined))
    throw new TypeError(`disk "${disk}" needs both freeze and thaw, or none: nobody would undo the one`)
  if (ms !== undefined && !(Number.isSafeInteger(ms) && (ms as number) > 0 && (ms as number) <= TIMER_MS_MAX))
    throw new TypeError('freezeTimeoutMs must be a whole number of milliseconds from 1 up')
}

function isTcp(tcp: unknown): boolean {
  if (typeof tcp !== 'object' || tcp === null) return false
  const { host, port } = tcp as Record<string, unknown>
  return (
    (host === undefined || (typeof host === 'string' && host !== '')) &&
    Number.isInteger(port) &&
    (port as number) >= 0 &&
    (port as number) <= 65_535
  )
}

/** Two disks over one file: what is written through one would change the other unrecorded (R31). */
async function refuseSameFile(disks: readonly NbdDiskOptions[]): Promise<void> {
  const seen = new Map<string, string>()
  for (const { disk, file } of disks) {
    // What cannot be looked at is told when it is opened.
    const there = await stat(file, { bigint: true }).catch(() => null)
    if (there === null) continue
    const identity = there.isBlockDevice() ? `block ${there.rdev}` : `${there.dev}:${there.ino}`
    const other = seen.get(identity)
    if (other !== undefined)
      throw new TypeError(
        `disks "${other}" and "${disk}" are one file, ${file}: writes through one would change the other`,
      )
    seen.set(identity, disk)
  }
}

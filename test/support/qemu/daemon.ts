/**
 * A real qemu-storage-daemon on a temporary image, as the oracle of the live proofs and the recorder: one node `drive0`
 * (with `discard=unmap`, else trims dirty nothing) behind a writable NBD export. The process is ended by its own
 * handle, whatever happens: by `stop`, and by the exit of this process.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Nbd, type NbdRange } from './nbd.ts'
import { type Arguments, Qmp } from './qmp.ts'

export type ImageFormat = 'raw' | 'qcow2' | 'null-co'

export const NODE = 'drive0'
const WRITER = 'writer'
const LOOKER = 'looker'
const COPY = '~copy'
const JOB = 'job'
const TARGET = 'target'

/** One bitmap as `query-named-block-nodes` tells it. */
export interface QemuBitmap {
  readonly name?: string
  readonly granularity: number
  readonly recording: boolean
  readonly busy: boolean
  readonly persistent: boolean
  readonly count: number
}

export class QemuDaemon {
  readonly #folder: string
  readonly #format: ImageFormat
  readonly #nullBytes: number
  #process: ChildProcess | undefined
  #stderr = ''
  #qmp: Qmp | undefined
  #writer: Nbd | undefined
  readonly #onExit = () => this.#process?.kill('SIGKILL')

  private constructor(format: ImageFormat, bytes: number, root: string) {
    this.#format = format
    this.#nullBytes = bytes
    this.#folder = mkdtempSync(join(root, 'slicelog-qemu-'))
    process.on('exit', this.#onExit)
  }

  /** Makes an empty image of `bytes` bytes, in a folder of its own in `root`, and starts a daemon on it. */
  static async start(format: ImageFormat, bytes: number, root: string = tmpdir()): Promise<QemuDaemon> {
    const daemon = new QemuDaemon(format, bytes, root)
    try {
      if (format === 'raw') {
        writeFileSync(daemon.#image, '')
        truncateSync(daemon.#image, bytes)
      } else if (format === 'qcow2') {
        execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', daemon.#image, String(bytes)])
      }
      await daemon.#open()
    } catch (error) {
      await daemon.stop()
      throw error
    }
    return daemon
  }

  get #image(): string {
    return join(this.#folder, 'disk.img')
  }

  get #nbdPath(): string {
    return join(this.#folder, 'nbd')
  }

  /** The daemon's command line connection; rejects once it is stopped. */
  get qmp(): Qmp {
    if (this.#qmp === undefined) throw new Error('this daemon is not running')
    return this.#qmp
  }

  /** The writable export. */
  get nbd(): Nbd {
    if (this.#writer === undefined) throw new Error('this daemon is not running')
    return this.#writer
  }

  /** For other programs: the writable export, or another one that was added through `qmp`. */
  uri(name: string = WRITER): string {
    return `nbd+unix:///${name}?socket=${this.#nbdPath}`
  }

  /** Of the daemon: e.g. `7.2.22`. */
  async version(): Promise<string> {
    const answer = (await this.qmp.execute('query-version')) as {
      qemu: Record<'major' | 'minor' | 'micro', number>
    }
    return `${answer.qemu.major}.${answer.qemu.minor}.${answer.qemu.micro}`
  }

  async bitmaps(): Promise<QemuBitmap[]> {
    const nodes = (await this.qmp.execute('query-named-block-nodes', { flat: true })) as {
      'node-name': string
      'dirty-bitmaps'?: QemuBitmap[]
    }[]
    return nodes.find((node) => node['node-name'] === NODE)?.['dirty-bitmaps'] ?? []
  }

  /** QEMU's own digest of a bitmap's bits (R5). */
  async digest(name: string): Promise<string> {
    const answer = await this.qmp.execute('x-debug-block-dirty-bitmap-sha256', { node: NODE, name })
    return (answer as { sha256: string }).sha256
  }

  /**
   * Dirty ranges of bitmaps that no job holds. They are shown through a second, writable export, because a read-only
   * one is refused for a bitmap that is recording. It lives only as long as this call, since an exported bitmap is busy.
   */
  async extents(names: readonly string[]): Promise<Map<string, NbdRange[]>> {
    if (names.length === 0) return new Map()
    await this.#export(LOOKER, names, true)
    return this.#statusOf(names)
  }

  /**
   * The same while a job runs: it allows no second writable export, so every bitmap is copied into a disabled one, and
   * those are shown read-only. Bitmaps that the job itself holds can be shown by nobody.
   */
  async extentsBesideJob(names: readonly string[]): Promise<Map<string, NbdRange[]>> {
    const granularity = new Map((await this.bitmaps()).map((bitmap) => [bitmap.name, bitmap.granularity]))
    const copies = names.map((name, index) => ({
      name,
      copy: `${COPY}${index}`,
      granularity: granularity.get(name)!,
    }))
    if (copies.length === 0) return new Map()
    for (const { name, copy, granularity } of copies) {
      await this.qmp.execute('block-dirty-bitmap-add', {
        node: NODE,
        name: copy,
        granularity,
        disabled: true,
      })
      await this.qmp.execute('block-dirty-bitmap-merge', { node: NODE, target: copy, bitmaps: [name] })
    }
    await this.#export(
      LOOKER,
      copies.map(({ copy }) => copy),
      false,
    )
    const status = await this.#statusOf(copies.map(({ copy }) => copy))
    for (const { copy } of copies)
      await this.qmp.execute('block-dirty-bitmap-remove', { node: NODE, name: copy })
    return new Map(copies.map(({ name, copy }) => [name, status.get(copy) ?? []]))
  }

  /**
   * Begins a backup job and waits until it has copied everything; it then holds its bitmap until `endJob`.
   * Rejects with QmpError when QEMU refuses the arguments.
   */
  async startJob(args: Arguments): Promise<void> {
    const size = this.nbd.size
    const target = { driver: 'null-co', 'node-name': TARGET, size, 'read-zeroes': true }
    await this.qmp.execute('blockdev-add', target)
    try {
      await this.qmp.execute('blockdev-backup', {
        'job-id': JOB,
        device: NODE,
        target: TARGET,
        'auto-finalize': false,
        ...args,
      })
    } catch (error) {
      await this.qmp.execute('blockdev-del', { 'node-name': TARGET })
      throw error
    }
    await this.#jobStatus('pending')
  }

  async endJob(how: 'finalize' | 'cancel'): Promise<void> {
    await this.qmp.execute(`job-${how}`, { id: JOB })
    await this.#jobStatus('null')
    await this.qmp.execute('blockdev-del', { 'node-name': TARGET })
  }

  async #jobStatus(status: string): Promise<void> {
    await this.qmp.waitFor('JOB_STATUS_CHANGE', ({ data }) => data.id === JOB && data.status === status)
  }

  /** Reads what the looker's export shows of bitmaps, and takes it away. */
  async #statusOf(names: readonly string[]): Promise<Map<string, NbdRange[]>> {
    const answer = new Map<string, NbdRange[]>()
    const nbd = await Nbd.connect(this.#nbdPath, LOOKER, names.map(contextOf))
    try {
      const status = await nbd.status(names.map(contextOf))
      for (const name of names) answer.set(name, status.get(contextOf(name)) ?? [])
    } finally {
      await nbd.disconnect()
      await this.#unexport(LOOKER)
    }
    return answer
  }

  /** QEMU refuses to resize a node that has a writable export, so it is taken away meanwhile. */
  async resize(bytes: number): Promise<void> {
    await this.nbd.disconnect()
    await this.#unexport(WRITER)
    try {
      await this.qmp.execute('block_resize', { 'node-name': NODE, size: bytes })
    } finally {
      await this.#exportWriter()
    }
  }

  /** Quits cleanly and opens the same image again. */
  async restart(): Promise<void> {
    await this.#quit()
    await this.#open()
  }

  /** Ends the daemon and removes its folder. Safe to call twice, and after a failure. */
  async stop(): Promise<void> {
    try {
      if (this.#qmp !== undefined) await this.#quit()
    } catch {
      // Whatever it died of: the process is ended below.
    }
    await this.#kill()
    process.removeListener('exit', this.#onExit)
    rmSync(this.#folder, { recursive: true, force: true })
  }

  async #open(): Promise<void> {
    const socket = join(this.#folder, 'qmp')
    rmSync(socket, { force: true })
    rmSync(this.#nbdPath, { force: true })
    const child = spawn(
      'qemu-storage-daemon',
      ['--chardev', `socket,id=c,path=${socket},server=on,wait=off`, '--monitor', 'chardev=c'],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    )
    this.#process = child
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString()
    })
    child.on('error', (error) => {
      this.#stderr += error.message
    })
    this.#qmp = await this.#connect(socket)
    await this.qmp.execute('blockdev-add', this.#nodeOptions())
    await this.qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: this.#nbdPath } } })
    await this.#exportWriter()
  }

  /** Tries until the daemon listens: its socket file is there a moment before. */
  async #connect(socket: string): Promise<Qmp> {
    for (let waited = 0; ; waited += 10) {
      if (existsSync(socket)) {
        try {
          return await Qmp.connect(socket)
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED') throw error
        }
      }
      if (this.#process?.exitCode !== null || waited > 10_000)
        throw new Error(`qemu-storage-daemon did not start: ${this.#stderr}`)
      await sleep(10)
    }
  }

  #nodeOptions(): Arguments {
    if (this.#format === 'null-co')
      return {
        driver: 'null-co',
        'node-name': NODE,
        size: this.#nullBytes,
        'read-zeroes': true,
        discard: 'unmap',
      }
    const file = { driver: 'file', filename: this.#image, discard: 'unmap' }
    return { driver: this.#format, 'node-name': NODE, discard: 'unmap', file }
  }

  async #exportWriter(): Promise<void> {
    await this.#export(WRITER, [], true)
    this.#writer = await Nbd.connect(this.#nbdPath, WRITER)
  }

  async #export(id: string, bitmaps: readonly string[], writable: boolean): Promise<void> {
    await this.qmp.execute('block-export-add', {
      type: 'nbd',
      id,
      name: id,
      'node-name': NODE,
      writable,
      bitmaps,
    })
  }

  async #unexport(id: string): Promise<void> {
    await this.qmp.execute('block-export-del', { id, mode: 'hard' })
    await this.qmp.waitFor('BLOCK_EXPORT_DELETED', (event) => event.data.id === id)
  }

  async #quit(): Promise<void> {
    const child = this.#process
    const ended = new Promise<void>((resolve) => {
      if (child === undefined || child.exitCode !== null || child.signalCode !== null) resolve()
      else child.once('exit', () => resolve())
    })
    await this.#writer?.disconnect()
    this.#writer = undefined
    await this.#qmp?.execute('quit')
    await Promise.race([ended, sleep(10_000, undefined, { ref: false })])
    this.#qmp?.close()
    this.#qmp = undefined
  }

  async #kill(): Promise<void> {
    this.#qmp?.close()
    this.#qmp = undefined
    const child = this.#process
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    child.kill('SIGKILL')
    await ended
  }
}

function contextOf(bitmap: string): string {
  return `qemu:dirty-bitmap:${bitmap}`
}

/**
 * The NBD servers that are compared, each a process of its own on a Unix socket: slicelog as it is installed, and QEMU's two, on raw
 * files in the page cache (no O_DIRECT, no flush that the client does not ask for).
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { openStore } from '../src/index.ts'
import { QemuDaemon } from '../test/support/qemu/daemon.ts'
import { BITMAP, DISK, GRANULARITY } from './workload.ts'

/** Of the build that this runs in. */
const CLI = fileURLToPath(new URL('../src/cli/main.js', import.meta.url))
const START_MS = 10_000

export interface Served {
  readonly uri: string
  stop(): Promise<void>
}

/** Whether a program is on this machine. */
export function installed(program: string): boolean {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).error === undefined
}

/** `slicelog serve` of one disk with one bitmap; the store is made where there is none. */
export async function serveOurs(
  folder: string,
  file: string,
  durability: 'process' | 'power',
): Promise<Served> {
  await (await openStore(folder)).close()
  const words = ['--disk', `${DISK}=${file}`, '--bitmap', BITMAP, '--durability', durability, '--json']
  const child = spawn(process.execPath, [CLI, '--store', folder, 'serve', ...words])
  const ending = endsWithUs(child)
  const saying = saidBy(child)
  for await (const line of createInterface({ input: child.stdout })) {
    const { disks } = JSON.parse(line) as { disks: readonly [{ uris: readonly [string] }] }
    child.stdout.resume() // Its last line must not wait for a reader.
    return { uri: disks[0].uris[0], stop: ending }
  }
  throw new Error(`slicelog serve did not start: ${saying()}`)
}

/** A raw file, without a bitmap. */
export async function serveQemuNbd(folder: string, file: string): Promise<Served> {
  const socket = join(folder, 'qemu-nbd.sock')
  const child = spawn('qemu-nbd', ['-t', '-f', 'raw', '--cache=writeback', '-k', socket, '-x', DISK, file])
  const ending = endsWithUs(child)
  const saying = saidBy(child)
  for (let waited = 0; !existsSync(socket); waited += 10) {
    if (child.exitCode !== null || waited > START_MS) throw new Error(`qemu-nbd did not start: ${saying()}`)
    await sleep(10)
  }
  return { uri: `nbd+unix:///${DISK}?socket=${socket}`, stop: ending }
}

/** A raw file of its own and a bitmap that records, as ours has one. */
export async function serveDaemon(folder: string, bytes: number): Promise<Served> {
  const daemon = await QemuDaemon.start('raw', bytes, folder)
  await daemon.qmp.execute('block-dirty-bitmap-add', {
    node: 'drive0',
    name: BITMAP,
    granularity: GRANULARITY,
  })
  return { uri: daemon.uri(), stop: () => daemon.stop() }
}

/** Ends it when asked to; and, whatever happens, with this process. */
function endsWithUs(child: ChildProcess): () => Promise<void> {
  const kill = (): void => void child.kill('SIGKILL')
  process.on('exit', kill)
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve())
    child.once('error', () => resolve())
  })
  return async () => {
    process.removeListener('exit', kill)
    child.kill('SIGTERM')
    const late = setTimeout(kill, START_MS)
    await ended
    clearTimeout(late)
  }
}

function saidBy(child: ChildProcess): () => string {
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said = (said + String(chunk)).slice(-4096)
  })
  return () => said
}

/**
 * An operator's command around a point: run by /bin/sh in a process group of its own, so that it can be ended with all that it
 * started, and so that Ctrl-C on our terminal does not end it halfway. Costs a process; keeps the end of what it says.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'

/** Kept of what a command says on stderr: its end. */
const STDERR_BYTES = 2048
/** Between SIGTERM and SIGKILL. */
const GRACE_MS = 5000
const LOOK_MS = 20
/** After its end, for the rest of what it said: something that it left running may hold the pipe for ever. */
const REST_MS = 200

export interface ShellRun {
  readonly environment: Readonly<Record<string, string>>
  readonly timeoutMs: number
  /** With the id of its process group, once it runs. */
  readonly onStarted?: (group: number) => void
}

export type ShellEnd =
  | { readonly kind: 'ended'; readonly code: number; readonly stderr: string }
  | { readonly kind: 'signalled'; readonly signal: string; readonly stderr: string }
  /** Its group was ended with SIGTERM, what was left of it with SIGKILL. */
  | { readonly kind: 'timeout'; readonly stderr: string }
  | { readonly kind: 'not-started'; readonly cause: Error; readonly stderr: string }

/** Never rejects. */
export async function runShell(command: string, run: ShellRun): Promise<ShellEnd> {
  let child: ChildProcess
  try {
    child = spawn('/bin/sh', ['-c', command], {
      detached: true,
      env: { ...process.env, ...run.environment },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
  } catch (cause) {
    return { kind: 'not-started', cause: cause as Error, stderr: '' }
  }
  const said = tailOf(child)
  const ended = endOf(child)
  if (child.pid !== undefined) run.onStarted?.(child.pid)
  const stop = new AbortController()
  const late = sleep(run.timeoutMs, 'late' as const, { signal: stop.signal }).catch(() => 'late' as const)
  const first = await Promise.race([ended, late])
  stop.abort()
  if (first === 'late') {
    if (child.pid !== undefined) await endGroup(child.pid)
    await Promise.race([ended, sleep(REST_MS)])
    return { kind: 'timeout', stderr: await said() }
  }
  return { ...first, stderr: await said() }
}

type End =
  | { kind: 'ended'; code: number }
  | { kind: 'signalled'; signal: string }
  | { kind: 'not-started'; cause: Error }

function endOf(child: ChildProcess): Promise<End> {
  return new Promise((resolve) => {
    child.once('error', (cause) => resolve({ kind: 'not-started', cause }))
    child.once('exit', (code, signal) =>
      resolve(code === null ? { kind: 'signalled', signal: String(signal) } : { kind: 'ended', code }),
    )
  })
}

/** What a call gives is the end of all that came by then; afterwards nothing is read any more. */
function tailOf({ stderr }: ChildProcess): () => Promise<string> {
  if (stderr === null) return async () => ''
  let tail = Buffer.alloc(0)
  stderr.on('data', (chunk: Buffer) => {
    tail = Buffer.concat([tail, chunk]).subarray(-STDERR_BYTES)
  })
  stderr.on('error', () => undefined)
  const closed = new Promise<void>((resolve) => stderr.once('close', () => resolve()))
  return async () => {
    await Promise.race([closed, sleep(REST_MS)])
    stderr.destroy()
    return tail.toString().trim()
  }
}

async function endGroup(group: number): Promise<void> {
  signalGroup(group, 'SIGTERM')
  for (let waited = 0; waited < GRACE_MS; waited += LOOK_MS) {
    if (!signalGroup(group, 0)) return
    await sleep(LOOK_MS)
  }
  signalGroup(group, 'SIGKILL')
}

/** False when nobody is left in it. */
function signalGroup(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-group, signal)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

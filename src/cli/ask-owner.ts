/**
 * A command that finds its store owned by a process that serves it goes there, whole: words, folder, terminal (R34). What comes
 * back is printed here as it comes. Decided before the command has printed or changed anything.
 */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { CheckpointError } from '../errors.ts'
import type { Asked, OwnerConnection } from '../owner/client.ts'
import { type Screen, sentEnvironment } from '../owner/protocol.ts'
import { type Io, type Output, writeOut } from './io.ts'
import { withAbsoluteTimes } from './local-times.ts'

/** Thrown by a session instead of opening a store that another process serves: not a failure, but the way to it. */
export class OwnerFound extends Error {
  override readonly name = 'OwnerFound'
  constructor(
    readonly connection: OwnerConnection,
    readonly folder: string,
  ) {
    super(`process ${connection.pid} owns ${folder}`)
  }
}

/**
 * Runs the command line at the owner and prints its answer. `onPassOn` is given the way to pass Ctrl-C on.
 * @returns the exit code; `again` when the owner was closing and did nothing
 * @throws CheckpointError OWNER_UNREACHABLE; when the owner dies: OWNER_GONE, or OUTCOME_UNKNOWN of what may have changed something
 */
export async function askOwner(
  { connection, folder }: OwnerFound,
  action: Command | undefined,
  argv: readonly string[],
  io: Io,
  onPassOn: (passOn: (why: 'interrupt' | 'closed-pipe') => void) => void,
): Promise<number | 'again'> {
  const request = {
    argv: withAbsoluteTimes(argv, action),
    cwd: io.cwd ?? resolve('.'),
    env: sentEnvironment(io.env),
    stdout: screenOf(io.stdout),
    stderr: screenOf(io.stderr),
  }
  const asking = connection.ask(
    request,
    (text) => writeOut(io.stdout, text),
    (text) => writeOut(io.stderr, text),
  )
  onPassOn((why) => connection.stop(why))
  try {
    return ending(await asking, connection.pid, folder, action)
  } finally {
    connection.close()
  }
}

function ending(asked: Asked, pid: number, folder: string, action: Command | undefined): number | 'again' {
  switch (asked.kind) {
    case 'exit':
      return asked.code
    case 'not-run':
      return 'again'
    case 'refused':
      throw new CheckpointError('OWNER_UNREACHABLE', asked.refused.message, asked.refused.facts)
    case 'lost':
      throw lost(pid, folder, action)
    default:
      return asked satisfies never
  }
}

function lost(pid: number, folder: string, action: Command | undefined): CheckpointError {
  const facts = { folder, pid }
  const words = wordsOf(action)
  if (ONLY_READS.has(words)) {
    return new CheckpointError(
      'OWNER_GONE',
      `Process ${pid}, which owned ${folder}, ended while it answered. What was printed holds, and nothing was changed by this command; ask again for the rest.`,
      facts,
    )
  }
  return new CheckpointError(
    'OUTCOME_UNKNOWN',
    `Process ${pid}, which owned ${folder}, ended before it said what became of "${words}", so whether it was done is unknown; look with "slicelog log --reverse", or give the same --command-id again.`,
    facts,
  )
}

/** `backup begin`: the command without its arguments. */
function wordsOf(action: Command | undefined): string {
  const words: string[] = []
  for (let at: Command | null | undefined = action; at?.parent != null; at = at.parent)
    words.unshift(at.name())
  return words.join(' ')
}

/** Commands that change nothing, whatever their arguments. One that is missing here is told with more caution than it needs. */
const ONLY_READS: ReadonlySet<string> = new Set([
  'at',
  'backup ls',
  'backup plan',
  'bitmap ls',
  'bitmap show',
  'blame',
  'changed',
  'checkpoint ls',
  'coverage',
  'disk ls',
  'explain',
  'head',
  'history',
  'log',
  'replay',
  'slice ls',
  'status',
  'verify',
])

function screenOf(output: Output): Screen {
  return { tty: output.isTTY === true, columns: output.columns ?? null }
}

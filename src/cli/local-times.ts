/**
 * A time without an offset is local time (ISO 8601), and the owner that answers may live in another zone: such words are made
 * absolute here, where they were meant, before the command line goes to it. Only words that the command reads as points or times.
 */
import type { Command } from 'commander'
import { parsePoint, parseSince } from '../store/points.ts'
import { parseTime } from './parse.ts'

const LOCAL = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/
const READS_TIMES: ReadonlySet<unknown> = new Set([parsePoint, parseSince, parseTime])

export function withAbsoluteTimes(argv: readonly string[], action: Command | undefined): string[] {
  if (action === undefined) return [...argv]
  const flags = action.options.flatMap(({ parseArg, long, short, required, optional }) =>
    [long, short].flatMap((flag) =>
      flag == null ? [] : [{ flag, valued: required || optional, timed: READS_TIMES.has(parseArg) }],
    ),
  )
  const timed = action.registeredArguments.some(({ parseArg }) => READS_TIMES.has(parseArg))
  return argv.map((word, i) => {
    const joined = flags.find(({ flag }) => word.startsWith(`${flag}=`))
    if (joined !== undefined) {
      const value = word.slice(joined.flag.length + 1)
      return joined.timed ? `${joined.flag}=${absolute(value)}` : word
    }
    const before = flags.find(({ flag, valued }) => valued && flag === argv[i - 1])
    return (before?.timed ?? (timed && !isGlobalValue(argv[i - 1]))) ? absolute(word) : word
  })
}

/** `--actor 2026-01-01T00:00` names an actor. */
function isGlobalValue(before: string | undefined): boolean {
  return before !== undefined && ['--store', '--actor', '--command-id'].includes(before)
}

function absolute(word: string): string {
  return LOCAL.test(word) ? new Date(word).toISOString() : word
}

/** Words that an owner in another time zone would read otherwise are made absolute before they go there. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { withAbsoluteTimes } from '../../src/cli/local-times.ts'
import { buildProgram } from '../../src/cli/program.ts'
import { Session } from '../../src/cli/session.ts'
import { captured } from './support.ts'

const zone = process.env.TZ
beforeAll(() => {
  process.env.TZ = 'America/New_York'
})
afterAll(() => {
  if (zone === undefined) delete process.env.TZ
  else process.env.TZ = zone
})

/** As the owner would get it. */
function sent(...words: string[]): string[] {
  const io = captured()
  const { command } = buildProgram(io, true, (program) => new Session(io, AbortSignal.abort(), program))
  const named = words.filter((word) => /^[a-z]+$/.test(word))
  const family = command.commands.find((one) => one.name() === named[0])
  return withAbsoluteTimes(words, family?.commands.find((one) => one.name() === named[1]) ?? family)
}

const LOCAL = '2026-11-18T18:00'
const ABSOLUTE = '2026-11-18T23:00:00.000Z'

test.each([
  [
    ['at', LOCAL],
    ['at', ABSOLUTE],
  ],
  [
    ['changed', 'vda', '--since', LOCAL],
    ['changed', 'vda', '--since', ABSOLUTE],
  ],
  [
    ['changed', 'vda', `--since=${LOCAL}:30.5`],
    ['changed', 'vda', '--since=2026-11-18T23:00:30.500Z'],
  ],
  [
    ['import', 'vda', 'f', '--at', LOCAL],
    ['import', 'vda', 'f', '--at', ABSOLUTE],
  ],
  [
    ['log', '--from', LOCAL, '--to', 'now'],
    ['log', '--from', ABSOLUTE, '--to', 'now'],
  ],
])('R22: a time without an offset is meant where it was typed: %j', (words, expected) => {
  expect(sent(...words)).toEqual(expected)
})

test.each([
  [['at', '2026-11-18T18:00:00Z']],
  [['at', '2026-11-18']],
  [['at', '@1200']],
  [['disk', 'remove', LOCAL]],
  [['changed', LOCAL, '--since', '@1']],
  [['log', '--by', LOCAL]],
  [['at', '@5', '--actor', LOCAL]],
  [['disk', 'lost', 'vda', '--reason', LOCAL]],
  [['import', LOCAL, 'f']],
])('words that are absolute, or are no times to the command, go as they are: %j', (words) => {
  expect(sent(...words)).toEqual(words)
})

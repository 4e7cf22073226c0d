/** Freeze and thaw as an operator has them: `serve --freeze --thaw` as a process that is asked, stopped, and killed while it is frozen. */
import { existsSync, readFileSync } from 'node:fs'
import { truncate, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { openStore } from '../../src/index.ts'
import { captured, slicelog } from '../cli/support.ts'
import { cli, folders } from '../owner/support.ts'

const { path } = folders()
let made = 0

/** What the commands noted, a line each. */
function noted(file: string): string[] {
  return existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n') : []
}

async function until(right: () => boolean): Promise<void> {
  while (!right()) await sleep(10)
}

/** `serve` in a process of its own, once it is ready. `$LOG` in the words is a file to note in. */
async function serving(freeze: string, thaw: string, ...words: string[]) {
  const [store, file, log] = [path(`store-${++made}`), path(`disk-${made}.raw`), path(`noted-${made}`)]
  await (await openStore(store)).close()
  await writeFile(file, '')
  await truncate(file, 2 ** 20)
  const around = ['--freeze', freeze, '--thaw', thaw].map((word) => word.replaceAll('$LOG', log))
  const served = cli([
    '--store',
    store,
    'serve',
    '--disk',
    `vda=${file}`,
    '--bitmap',
    'b',
    '--json',
    ...around,
    ...words,
  ])
  await until(() => served.text.out.includes('\n') || served.child.exitCode !== null)
  if (served.child.exitCode !== null) throw new Error(`it ended: ${(await served.ended).err}`)
  const ask = (...asked: string[]) => cli(['--store', store, ...asked, '--json'])
  return { ...served, store, ask, noted: () => noted(log) }
}

const CHECKPOINT = ['checkpoint', 'create', 'c'] as const

async function checkpoints(store: string): Promise<number> {
  const opened = await openStore(store, { create: false })
  const { length } = opened.checkpoints()
  await opened.close()
  return length
}

describe('slicelog serve --freeze --thaw', () => {
  test('R8, R34: commands through the owner freeze and thaw; a freeze that fails is their failure, with exit code 1', async () => {
    const served = await serving(
      'echo "freeze $SLICELOG_COMMAND" >> $LOG; test ! -e $LOG.not || { echo asleep >&2; exit 4; }',
      'echo thaw >> $LOG',
    )
    const done = await served.ask(...CHECKPOINT).ended
    expect([done.code, done.err]).toEqual([0, ''])
    const plan = await served.ask('backup', 'plan', 'vda', 'b', '--mode', 'full').ended
    expect([plan.code, served.noted()]).toEqual([0, ['freeze create-checkpoint', 'thaw']])
    await writeFile(path(`noted-${made}.not`), '')
    const failed = await served.ask('backup', 'begin', 'vda', 'b', '--mode', 'full').ended
    expect(failed.code).toBe(1)
    const { error } = JSON.parse(failed.err) as { error: { code: string; facts: Record<string, unknown> } }
    expect(error).toMatchObject({ code: 'FREEZE_FAILED', facts: { disk: 'vda', exit: 4, stderr: 'asleep' } })
    expect(served.noted().slice(2)).toEqual(['freeze begin-backup', 'thaw'])
    served.child.kill('SIGTERM')
    expect((await served.ended).code).toBe(0)
  })

  test.each(['SIGTERM', 'SIGINT'] as const)(
    '%s while the guest freezes: the point is taken, the guest thawed, exit code 0',
    async (signal) => {
      const served = await serving('echo freeze >> $LOG; sleep 1', 'echo thaw >> $LOG')
      const asked = served.ask(...CHECKPOINT)
      await until(() => served.noted().length > 0)
      served.child.kill(signal)
      expect((await served.ended).code).toBe(0)
      await asked.ended
      expect(served.noted()).toEqual(['freeze', 'thaw'])
      expect(await checkpoints(served.store)).toBe(1)
    },
  )

  const SUDDEN: readonly (readonly [string, readonly NodeJS.Signals[]])[] = [
    ['SIGKILL', ['SIGKILL']],
    ['a terminal that hangs up', ['SIGHUP']],
    ['the second Ctrl-C', ['SIGINT', 'SIGINT']],
  ]

  test.each(SUDDEN)(
    'R21: %s while the guest freezes: the freeze is ended, the guest thawed all the same, nothing recorded',
    async (_, signals) => {
      const served = await serving(
        'echo freeze >> $LOG; sleep 1000; echo frozen >> $LOG',
        'echo "thaw $SLICELOG_DISK" >> $LOG',
      )
      const asked = served.ask(...CHECKPOINT)
      await until(() => served.noted().length > 0)
      for (const signal of signals) {
        served.child.kill(signal)
        await sleep(200)
      }
      await served.ended
      await asked.ended
      await until(() => served.noted().length > 1)
      expect(served.noted()).toEqual(['freeze', 'thaw vda'])
      expect(await checkpoints(served.store)).toBe(0)
    },
  )

  test('SIGKILL once it is frozen, with a thaw that fails at first', async () => {
    const served = await serving(
      'echo freeze >> $LOG',
      'echo thaw >> $LOG; test -e $LOG.again || { touch $LOG.again; kill -9 $PPID; exit 1; }',
    )
    // The first thaw is the served process's own, whose end is its parent's; the guard thaws next.
    await served.ask(...CHECKPOINT).ended
    await served.ended
    await until(() => served.noted().length > 2)
    expect(served.noted()).toEqual(['freeze', 'thaw', 'thaw'])
    expect(await checkpoints(served.store)).toBe(1)
  })

  test('a thaw that fails is told on stderr also where a program reads, each time', async () => {
    const served = await serving('true', 'exit 9')
    expect((await served.ask(...CHECKPOINT).ended).code).toBe(0)
    expect((await served.ask('checkpoint', 'create', 'd').ended).code).toBe(0)
    served.child.kill('SIGTERM')
    const { code, err } = await served.ended
    expect(code).toBe(0)
    const told = err
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { error: { code: string; facts: { attempt: number } } })
    expect(told.map(({ error }) => [error.code, error.facts.attempt])).toEqual(
      [1, 2, 1, 2].map((attempt) => ['THAW_FAILED', attempt]),
    )
  })

  const USAGE: readonly (readonly [string, readonly string[]])[] = [
    ['freeze alone', ['--freeze', 'true']],
    ['thaw alone', ['--thaw', 'true']],
    ['a timeout of nothing', ['--freeze-timeout', '3']],
    ['what no log can answer', ['--on-log-error', 'hope']],
    ['an empty command', ['--freeze', '', '--thaw', 'true']],
    ['no time', ['--freeze', 'true', '--thaw', 'true', '--freeze-timeout', '0']],
    ['a time that is none', ['--freeze', 'true', '--thaw', 'true', '--freeze-timeout', 'soon']],
  ]

  test.each(USAGE)('2: %s', async (_, words) => {
    const ran = await slicelog(
      ['--store', path(), 'serve', '--disk', 'vda=/nowhere', ...words, '--json'],
      captured(),
    )
    expect([ran.code, ran.out, ran.error().code]).toEqual([2, '', 'USAGE'])
  })
})

/** `replay`: plan past backups again from the log alone and compare with what was planned then (R26). */
import type { Command } from 'commander'
import type { Store } from '../../store/store.ts'
import type { BackupInfo } from '../../store/types.ts'
import { EXIT, UsageError } from '../exit.ts'
import { withExamples } from '../help.ts'
import { table } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'

interface Replayed {
  readonly id: string
  readonly disk: string
  readonly bitmap: string
  readonly mode: string
  readonly bytes: number
  readonly digest: string
  readonly replayed: string
  readonly equal: boolean
}

export function replayCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('replay')
      .description('plan past backups again from the log alone; exit code 12 when one differs')
      .argument('[backups...]', 'their ids')
      .option('--all', 'every backup there is'),
    ['slicelog --store ./state replay nightly-3', 'slicelog --store ./state replay --all --json'],
  ).action((ids: string[], options: { all?: boolean }) => replay(session, ids, options.all === true))
}

async function replay(session: Session, ids: readonly string[], all: boolean): Promise<void> {
  if (all === ids.length > 0) throw new UsageError('Name the backups to replay, or give --all.')
  await session.withStore(async (store) => {
    const backups = all ? [...store.backups()] : ids.map((id) => store.backup(id).info)
    const results = await replayAll(session, store, backups)
    if (results.some(({ equal }) => !equal)) session.setExit(EXIT.damage)
    await session.answer({ backups: results, equal: results.every(({ equal }) => equal) }, () =>
      report(session, results),
    )
  })
}

async function replayAll(
  session: Session,
  store: Store,
  backups: readonly BackupInfo[],
): Promise<Replayed[]> {
  const results: Replayed[] = []
  const bar = session.progress('replay')
  try {
    for (const { id, disk, bitmap, mode, digest, bytes } of backups) {
      bar.update(results.length, backups.length, text.shown(id))
      const plan = await store.replayPlan(id, { signal: session.signal })
      results.push({
        id,
        disk,
        bitmap,
        mode,
        bytes,
        digest,
        replayed: plan.digest,
        equal: plan.digest === digest && plan.bytes === bytes,
      })
    }
  } finally {
    bar.stop()
  }
  return results
}

function report({ paint }: Session, results: readonly Replayed[]): string {
  if (results.length === 0) return 'No backups to replay.'
  const rows = results.map(({ id, mode, bytes, digest, replayed, equal }) => [
    id,
    mode,
    text.bytes(bytes),
    text.shortDigest(digest),
    text.shortDigest(replayed),
    equal ? { text: 'equal', color: paint.colors.green } : { text: 'DIFFERENT', color: paint.colors.red },
  ])
  return table(paint, ['backup', 'mode', '>bytes', 'planned then', 'replayed now', ''], rows)
}

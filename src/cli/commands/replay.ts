/** `replay`: plan past backups again from the log alone and compare with what was planned then (R26). */
import type { Command } from 'commander'
import type { Store } from '../../store/store.ts'
import type { BackupInfo } from '../../store/types.ts'
import { EXIT, UsageError } from '../exit.ts'
import { withExamples } from '../help.ts'
import { type Cell, table } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'

interface Replayed {
  readonly id: string
  readonly disk: string
  readonly bitmap: string
  readonly mode: string
  readonly bytes: number
  /** Null of a combined one: its plan is derived from its members, and nothing was recorded to compare with. */
  readonly digest: string | null
  readonly replayed: string
  readonly equal: boolean | null
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
    if (results.some(({ equal }) => equal === false)) session.setExit(EXIT.damage)
    await session.answer({ backups: results, equal: results.every(({ equal }) => equal !== false) }, () =>
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
        equal: digest === null ? null : plan.digest === digest && plan.bytes === bytes,
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
    digest === null ? '-' : text.shortDigest(digest),
    text.shortDigest(replayed),
    verdict(paint, equal),
  ])
  return table(paint, ['backup', 'mode', '>bytes', 'planned then', 'replayed now', ''], rows)
}

function verdict({ colors }: Session['paint'], equal: boolean | null): Cell {
  if (equal === null) return { text: 'derived', color: colors.dim }
  return equal ? { text: 'equal', color: colors.green } : { text: 'DIFFERENT', color: colors.red }
}

/** `backup forget` and `backup combined`: what became of the copies, as whoever keeps them tells it. */
import type { Command } from 'commander'
import { wouldBreak } from '../../audit/coverage.ts'
import type { WouldBreak } from '../../audit/restore-points.ts'
import { checkMadeCopy } from '../../commands/copies.ts'
import { withExamples } from '../help.ts'
import type { Session } from '../session.ts'
import { backupShape, forgetShape, wouldBreakShape } from '../shapes.ts'
import { viewAfter, viewBefore } from '../view.ts'

export function copyCommands(family: Command, session: Session): void {
  withExamples(
    family
      .command('forget')
      .description('its copy is gone; bitmaps and slices stay as they are')
      .argument('<id>')
      .option('--reason <text>', 'why, for the log')
      .option('--dry-run', 'only say what that would break'),
    [
      'slicelog --store ./state backup forget monday --dry-run',
      'slicelog --store ./state backup forget monday --reason "target volume lost"',
    ],
  ).action((id: string, options: { reason?: string; dryRun?: boolean }) => forget(session, id, options))
  withExamples(
    family
      .command('combined')
      .description('copies were combined offline into one, which is a backup from now on')
      .argument('<new-id>')
      .argument('<ids...>', 'what it was made of, oldest first'),
    ['slicelog --store ./state backup combined week-1 monday tuesday wednesday'],
  ).action((id: string, of: string[]) => combined(session, id, of))
}

async function forget(
  session: Session,
  id: string,
  { reason, dryRun }: { readonly reason?: string; readonly dryRun?: boolean },
): Promise<void> {
  await session.withStore(async (store) => {
    const { commandId } = session.commandOptions
    const before = commandId === undefined || dryRun === true ? wouldBreak(store, id) : undefined
    if (before !== undefined && dryRun === true) {
      checkMadeCopy(store.backup(id).info)
      const json = { id, copy: store.backup(id).info.copy.kind, changed: false, ...wouldBreakShape(before) }
      await session.confirm(json, () => [`Forgetting ${id} would lose:`, ...consequences(before, null)])
      return
    }
    const answer = await store
      .backup(id)
      .forget(reason === undefined ? {} : { reason }, session.commandOptions)
    const broken = before ?? wouldBreak(await viewBefore(store, commandId), id)
    await session.confirm(forgetShape(answer, broken), () =>
      answer.changed
        ? [`The copy of ${id} is forgotten. Lost:`, ...consequences(broken, store.backup(id).info.disk)]
        : `The copy of ${id} was forgotten before; nothing changed.`,
    )
  })
}

/** `done`: the disk, once it is done; null: what it would be. */
function consequences({ backup, loses, breaks, combine }: WouldBreak, done: string | null): string[] {
  const points = (list: WouldBreak['breaks']) => list.map(({ point }) => `@${point.position}`).join(', ')
  if (loses.length === 0 && breaks.length === 0) return ['  nothing: every point can be restored as before']
  const words = loses.length === 0 ? [] : [`  its own point ${points(loses)}`]
  if (breaks.length > 0) {
    const ids = breaks.flatMap(({ copies }) => copies.filter(({ kept }) => kept).map(({ id }) => id))
    words.push(`  ${points(breaks)}, because ${ids.join(', ')} can be laid on nothing without it`)
  }
  if (done === null) {
    for (const of of combine)
      words.push(`Combine ${of.join(' and ')} first, and only the point of ${backup} is lost.`)
  } else if (breaks.length > 0) words.push(`What would repair that: slicelog coverage ${done}`)
  return words
}

async function combined(session: Session, id: string, of: readonly string[]): Promise<void> {
  await session.withStore(async (store) => {
    const backup = await store.recordCombined(id, of, session.commandOptions)
    const then = await viewAfter(store, session.commandOptions.commandId)
    const info = then.backups().find((one) => one.id === id) ?? backup.info
    await session.confirm(
      backupShape(info),
      () =>
        `${id} stands for ${of.join(', ')}. Those are still kept as far as the store knows: forget the ones that you delete.`,
    )
  })
}

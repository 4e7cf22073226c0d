/** `history`: each transition of a disk, bitmap, slice, backup or checkpoint, with its cause; also of one that is gone (R27). */
import type { Command } from 'commander'
import { type History, type HistorySubject, history } from '../../audit/history.ts'
import { withExamples } from '../help.ts'
import { parseSliceReference, type SliceReference } from '../parse.ts'
import { historyReport } from '../render/history.ts'
import type { Session } from '../session.ts'

export function historyCommands(program: Command, session: Session): void {
  const family = withExamples(
    program
      .command('history')
      .description('each transition with position, time and cause; also of what is no more'),
    [
      'slicelog --store ./state history bitmap vm-17/vda daily',
      'slicelog --store ./state history slice vm-17/vda daily 3',
      'slicelog --store ./state history backup nightly-17 --json',
    ],
  )
  withExamples(
    family
      .command('disk')
      .description('added, resized, attached, lost stretches, bitmaps, removed')
      .argument('<disk>'),
    ['slicelog --store ./state history disk vm-17/vda'],
  ).action((disk: string) => show(session, { kind: 'disk', disk }))
  withExamples(
    family
      .command('bitmap')
      .description('added, enabled, cleared, merged, backups over it, slices, removed')
      .argument('<disk>')
      .argument('<bitmap>'),
    ['slicelog --store ./state history bitmap vm-17/vda daily'],
  ).action((disk: string, bitmap: string) => show(session, { kind: 'bitmap', disk, bitmap }))
  withExamples(
    family
      .command('slice')
      .description('when its point began, what froze it, what became of it')
      .argument('<disk>')
      .argument('<bitmap>')
      .argument('<slice>', 'N, or GENERATION.N for one of several of that number', parseSliceReference),
    ['slicelog --store ./state history slice vm-17/vda daily 3'],
  ).action((disk: string, bitmap: string, slice: SliceReference) =>
    show(session, { kind: 'slice', disk, bitmap, ...slice }),
  )
  withExamples(
    family
      .command('backup')
      .description('begun, ended, what its success froze and dropped, what became of its copy')
      .argument('<backup>'),
    ['slicelog --store ./state history backup nightly-17 --json'],
  ).action((backup: string) => show(session, { kind: 'backup', backup }))
  withExamples(
    family
      .command('checkpoint')
      .description('created, deleted, what was banked and merged by that')
      .argument('<name>'),
    ['slicelog --store ./state history checkpoint before-upgrade'],
  ).action((checkpoint: string) => show(session, { kind: 'checkpoint', checkpoint }))
}

async function show(session: Session, subject: HistorySubject): Promise<void> {
  await session.withStore(async (store) => {
    const bar = session.progress('history')
    const found = await history(store, subject, {
      signal: session.signal,
      onProgress: (position, last) => bar.update(position, last),
    }).finally(() => bar.stop())
    await session.answer(shape(found), () => historyReport(session.paint, found))
  })
}

function shape({ subject, lives, transitions }: History) {
  return {
    subject,
    lives,
    transitions: transitions.map(
      ({ position, time, type, life, says, event: { type: _, ...data }, cause }) => ({
        position,
        time,
        type,
        life,
        says,
        data,
        cause,
      }),
    ),
  }
}

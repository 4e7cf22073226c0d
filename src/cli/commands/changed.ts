/** `changed`: what was written between any two moments, whether or not anybody marked them (R23). */
import type { Command } from 'commander'
import { parsePoint } from '../../store/points.ts'
import type { PointInput } from '../../store/types.ts'
import { withExamples } from '../help.ts'
import { parseSize } from '../parse.ts'
import { extentTable } from '../render/extents.ts'
import { facts } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { changedShape } from '../shapes.ts'
import { bitmapContext } from '../view.ts'

interface ChangedOptions {
  readonly since: PointInput
  readonly until?: PointInput
  readonly granularity?: number
  readonly bitmap?: string
}

export function changedCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('changed')
      .description('what was written to a disk between two points in time')
      .argument('<disk>')
      .requiredOption('--since <point>', 'from when on', parsePoint)
      .option('--until <point>', 'up to when (default: now)', parsePoint)
      .option(
        '--bitmap <name>',
        "whose slices slice:N means (default: the disk's bitmap, where it has only one)",
      )
      .option('--granularity <size>', 'bytes per bit of the answer, from 512 up (default: 64K)', parseSize),
    [
      'slicelog --store ./state changed vm-17/vda --since 2026-11-18T18:00:00Z',
      'slicelog --store ./state changed vm-17/vda --since slice:2 --until backup:nightly-3 --granularity 4K --json',
    ],
  ).action((disk: string, options: ChangedOptions) => show(session, disk, options))
}

async function show(session: Session, disk: string, options: ChangedOptions): Promise<void> {
  await session.withStore(async (store) => {
    const changed = await store.changed(disk, {
      ...options,
      ...bitmapContext(store, disk, options.bitmap),
      signal: session.signal,
    })
    await session.answer(changedShape(changed), () =>
      [
        facts(session.paint, [
          ['disk', disk],
          ['since', text.point(changed.since)],
          ['until', text.point(changed.until)],
          [
            'changed',
            `${text.bytes(changed.bytes)} in ${text.plural(changed.extents.length, 'extent')} of ${text.bytes(changed.granularity)} granules`,
          ],
          ['resolution', changed.resolution],
          ['complete', changed.complete ? 'yes' : 'no'],
          ...(changed.lost.length === 0 ? [] : [['lost', text.lost(changed.lost)] as const]),
          ...text.clockSteps(changed.clockSteps),
          ['digest', changed.digest],
          ['reason', changed.reason],
        ]),
        extentTable(session.paint, changed.extents),
      ].join('\n'),
    )
  })
}

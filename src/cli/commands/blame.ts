/** `blame`: which writes touched a byte range, newest first, and which backups hold them (R27). */
import type { Command } from 'commander'
import { type Blame, blame } from '../../audit/blame.ts'
import { parsePoint } from '../../store/points.ts'
import type { PointInput } from '../../store/types.ts'
import { withExamples } from '../help.ts'
import { parsePositiveCount, parseSize } from '../parse.ts'
import { blameReport } from '../render/blame.ts'
import type { Session } from '../session.ts'
import { bitmapContext } from '../view.ts'

interface BlameOptions {
  readonly limit?: number
  readonly since?: PointInput
  readonly until?: PointInput
  readonly bitmap?: string
}

export function blameCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('blame')
      .description(
        'which writes touched a byte range, newest first, which backups hold them, and since when it is covered',
      )
      .argument('<disk>')
      .argument('<offset>', 'a size: 1G, 4096', parseSize)
      .argument('<length>', 'a size of 1 or more', parseSize)
      .option('--limit <n>', 'at most so many writes (default: 20)', parsePositiveCount)
      .option('--since <point>', 'only writes after this point', parsePoint)
      .option('--until <point>', 'only writes up to this point', parsePoint)
      .option('--bitmap <name>', 'the bitmap whose slices slice:N means (default: its only one)'),
    [
      'slicelog --store ./state blame vm-17/vda 1G 64K',
      'slicelog --store ./state blame vm-17/vda 0 512 --until backup:nightly-17 --limit 1 --json',
    ],
  ).action((disk: string, offset: number, length: number, options: BlameOptions) =>
    show(session, disk, { offset, length }, options),
  )
}

async function show(
  session: Session,
  disk: string,
  range: { readonly offset: number; readonly length: number },
  { limit, since, until, bitmap }: BlameOptions,
): Promise<void> {
  await session.withStore(async (store) => {
    const blamed = await blame(store, disk, range, {
      ...(limit === undefined ? {} : { limit }),
      ...(since === undefined ? {} : { since }),
      ...(until === undefined ? {} : { until }),
      ...bitmapContext(store, disk, bitmap),
      signal: session.signal,
    })
    await session.answer(shape(blamed), () => blameReport(session.paint, blamed))
  })
}

/** Field by field, as every shape that scripts rely on. */
function shape(blamed: Blame) {
  const { disk, offset, length, since, until, touches, more, resolution, covered, read } = blamed
  return { disk, offset, length, since, until, resolution, covered, touches, more, read }
}

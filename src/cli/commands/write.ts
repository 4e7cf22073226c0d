/** `write`: record writes by hand. */
import { type Command, Option } from 'commander'
import { WRITE_OPS, type WriteOp } from '../../../events/types.ts'
import { toColumns } from '../../store/incoming.ts'
import type { WriteRange } from '../../store/types.ts'
import { attach } from '../attach.ts'
import { UsageError } from '../exit.ts'
import { withExamples } from '../help.ts'
import { collectRanges } from '../parse.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'

interface WriteOptions {
  readonly op: WriteOp
  readonly quiet?: boolean
}

export function writeCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('write')
      .description('record writes by hand: all of them or none')
      .argument('<disk>')
      .argument('<ranges...>', 'OFFSET+LENGTH', collectRanges)
      .addOption(new Option('--op <op>', 'what they were').choices([...WRITE_OPS]).default('write'))
      .option(
        '--quiet',
        'nothing was written to the disk since the last session ended, though it ended uncleanly',
      ),
    [
      'slicelog --store ./state write vm-17/vda 4K+512 0+64K',
      'slicelog --store ./state write vm-17/vda 1G+1M --op discard',
    ],
  ).action((disk: string, ranges: readonly WriteRange[], options: WriteOptions) =>
    write(session, disk, ranges, options),
  )
}

async function write(
  session: Session,
  disk: string,
  ranges: readonly WriteRange[],
  options: WriteOptions,
): Promise<void> {
  if (session.options.commandId !== undefined) {
    throw new UsageError('Writes are no commands and take no --command-id: each one is an event of its own.')
  }
  await session.withStore(async (store) => {
    const writes = ranges.map((range) => ({ ...range, op: options.op }))
    // Checked before the disk is attached: what is refused, or records nothing, leaves no event (R21).
    const { size } = store.disk(disk)
    const wanted = toColumns(0, disk, size, writes).offsets.length
    const { first, count } =
      wanted === 0
        ? { first: null, count: 0 }
        : await (await attach(session, store, disk, { quiet: options.quiet === true })).recordWrites(writes)
    await session.confirm({ disk, first, count }, () =>
      count === 0
        ? 'Nothing to record: every length is 0.'
        : `Recorded ${text.plural(count, 'write')} at @${first}.`,
    )
  })
}

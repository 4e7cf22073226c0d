/** `copy TO`: a consistent copy of a store, also of one that is being written to. */
import type { Command } from 'commander'
import { withExamples } from '../help.ts'
import { facts } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'

export function copyCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('copy')
      .description(
        'copy the store as it is now to another folder; files of an open store cannot be copied by hand',
      )
      .argument('<to>', 'a folder that does not exist yet, or is empty'),
    ['slicelog --store ./state copy /backup/state-2026-11-18'],
  ).action((to: string) => copy(session, to))
}

async function copy(session: Session, to: string): Promise<void> {
  await session.withStore(async (store) => {
    const bar = session.progress('copy')
    const copied = await store
      .copyTo(session.path(to), {
        signal: session.signal,
        onProgress: (position, total) => bar.update(position + 1, total),
      })
      .finally(() => bar.stop())
    await session.answer(copied, () =>
      facts(session.paint, [
        ['copy', text.shown(copied.folder)],
        ['store', copied.store],
        ['events', text.count(copied.events)],
        ['head', text.point(copied.head)],
        ['hash', copied.head.hash],
      ]),
    )
  })
}

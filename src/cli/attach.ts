/** Attaching a disk that is known: `write` and `import` do not make disks, and take the size from the store. */
import type { Disk } from '../store/disk.ts'
import type { Store } from '../store/store.ts'
import * as text from './render/text.ts'
import type { Session } from './session.ts'

/**
 * `quiet`: nothing was written since the last session, however it ended. Otherwise an unclean end costs a lost stretch
 * (R32), and whoever runs the command is told. `time`: when writes of the past begin. On an owner's store the disk stays attached.
 */
export async function attach(
  session: Session,
  store: Store,
  disk: string,
  { quiet, time }: { readonly quiet: boolean; readonly time?: number | undefined },
): Promise<Disk> {
  const { size, lost } = store.disk(disk).info
  const { actor } = session.commandOptions
  const attached = await store.ensureDisk(
    disk,
    { size, quiet, ...(time === undefined ? {} : { time }) },
    actor === undefined ? {} : { actor },
  )
  const declared = attached.info.lost.slice(lost.length)
  if (declared.length > 0) {
    session.note(
      `slicelog: the last session ended uncleanly, so writes may have gone unrecorded: ${text.lost(declared)}. ` +
        'Answers that reach back before that cover the whole disk. --quiet says that nothing was written.',
    )
  }
  return attached
}

/**
 * Whether a disk's file changed while nobody served it (R35): the system's time of its last change, of content or of anything
 * else, against the disk's last clean detach. What nobody tracked is a lost stretch, so every older map covers the disk.
 *
 * It errs to the safe side where rights or name changed and no byte. It cannot see what leaves no such time behind: a folder
 * rolled back with all its times, another file of the same size that is older, a clock that was set back; nor anything after
 * an unclean end, when our own last writes are as young. Cost: one stat, and the log backwards to that detach.
 */
import type { Store } from '../store/store.ts'
import type { DiskInfo } from '../store/types.ts'

export async function declareIfChanged(
  store: Store,
  disk: DiskInfo,
  changedAt: number | null,
): Promise<void> {
  // What a caller records is the caller's to vouch for; a disk that is attached ended uncleanly, or is served here already.
  if (changedAt === null || disk.recorder !== 'store' || disk.attached) return
  const detached = { disk: disk.disk, types: ['disk-detached'], reverse: true, limit: 1 }
  for await (const { position, time } of store.log(detached)) {
    // The log's times are whole milliseconds.
    if (Math.floor(changedAt) <= time) return
    await store
      .disk(disk.disk)
      .declareLost(
        `its file changed at ${new Date(changedAt).toISOString()}, after it was served last (until ${new Date(time).toISOString()})`,
        { from: { position } },
      )
  }
}

/**
 * What QEMU refuses about a backup job's arguments before it looks at any bit (do_backup_common), and what is left of
 * a job that it accepts. These refusals belong to QEMU's wire, not to the store, so the replay has them here.
 */
import type { BackupMode } from '../../events/types.ts'
import type { JobMode } from './format.ts'

export interface JobArguments {
  readonly bitmap?: string
  readonly sync: string
  readonly mode?: JobMode
}

/**
 * QEMU's text for a combination it refuses. Where the named bitmap does not exist, what QEMU would check after that is
 * not checked here either: the store then refuses the bitmap.
 */
export function refusedJob(job: JobArguments, exists: boolean): string | undefined {
  const { bitmap, sync } = job
  if (bitmap === undefined && (sync === 'bitmap' || sync === 'incremental'))
    return `must provide a valid bitmap name for '${sync}' sync mode`
  if (sync === 'incremental' && job.mode !== undefined && job.mode !== 'on-success')
    return "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'"
  if (bitmap === undefined)
    return job.mode === undefined ? undefined : 'Cannot specify bitmap sync mode without a bitmap'
  if (!exists) return undefined
  const mode = sync === 'incremental' ? 'on-success' : job.mode
  if (mode === undefined) return 'Bitmap sync mode must be given when providing a bitmap'
  if (sync === 'none') return "sync mode 'none' does not produce meaningful bitmap outputs"
  if (mode === 'never' && sync !== 'bitmap')
    return `Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '${sync}'`
  return undefined
}

/** The store's mode for an accepted job: `never` keeps the bits (differential), a full one resets them (R9). */
export function modeOf(job: JobArguments): BackupMode {
  if (job.sync === 'full' || job.sync === 'top') return 'full'
  return job.mode === 'never' ? 'differential' : 'incremental'
}

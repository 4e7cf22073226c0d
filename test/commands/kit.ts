/** Short words for the events and commands that the rules' tests are written in. */
import type { BackupMode, Base, BitmapRef, DomainEvent } from '../../events/types.ts'
import type { BeginBackup } from '../../src/commands/types.ts'
import type { Given, SomeWrites } from '../../src/testing/given.ts'

export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB

export const vda = { disk: 'vda' } as const
export const daily = { disk: 'vda', bitmap: 'daily' } as const
export const weekly = { disk: 'vda', bitmap: 'weekly' } as const

export function diskAdded(disk = 'vda', size = GiB): DomainEvent {
  return { type: 'disk-added', disk, size }
}

export function attached(disk = 'vda', recorder: 'caller' | 'store' = 'caller'): DomainEvent {
  return { type: 'disk-attached', disk, recorder }
}

export function bitmapAdded(
  ref: BitmapRef = daily,
  options: { retention?: number; recording?: boolean; persistent?: boolean; granularity?: number } = {},
): DomainEvent {
  const { retention = 0, recording = true, persistent = true, granularity = 64 * KiB } = options
  return { type: 'bitmap-added', ...ref, granularity, recording, persistent, retention }
}

export function writes(count = 1, disk = 'vda'): SomeWrites {
  return { type: 'writes', disk, count }
}

export const NONE: Base = { kind: 'none', position: -1, time: null }

export function begun(
  backup: string,
  mode: BackupMode,
  options: { ref?: BitmapRef; group?: string; forceCycle?: boolean; base?: Base } = {},
): DomainEvent {
  const { ref = daily, group, forceCycle = false, base = NONE } = options
  const event: DomainEvent = {
    type: 'backup-begun',
    backup,
    ...ref,
    mode,
    base,
    forceCycle,
    copiedBy: 'caller',
    digest: 'digest',
    bytes: 0,
    complete: true,
  }
  return group === undefined ? event : { ...event, group }
}

export function begin(backup: string, mode: BackupMode, options: Partial<BeginBackup> = {}): BeginBackup {
  return { type: 'begin-backup', backup, ...daily, mode, copiedBy: 'caller', ...options }
}

export function frozen(slice: number, next: number, ref: BitmapRef = daily): DomainEvent {
  return { type: 'slice-frozen', ...ref, slice, next, cause: { kind: 'bank' } }
}

/** A disk with one recording bitmap that keeps `retention` slices and has `slices` banked: numbers 0 to slices - 1. */
export function withSlices(slices: number, retention = 10): Given[] {
  const banked = Array.from({ length: slices }, (_, n): Given[] => [writes(2), frozen(n, n + 1)]).flat()
  return [diskAdded(), attached(), bitmapAdded(daily, { retention }), ...banked]
}

/** The same while backup `night` runs on the bitmap. */
export function busy(mode: BackupMode = 'differential', slices = 0): Given[] {
  return [...withSlices(slices), begun('night', mode)]
}

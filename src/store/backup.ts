/** A backup as its caller holds it: the plan to copy, and the ways to end it. */

import type { Answer, BackupOutcome } from '../commands/answer.ts'
import { CheckpointError } from '../errors.ts'
import { needObject } from './arguments.ts'
import type { Core } from './core.ts'
import type { BackupInfo, CommandOptions, EndAnswer, ForgetAnswer, Plan, SucceedAnswer } from './types.ts'
import { backupInfo } from './view.ts'

export class Backup {
  readonly id: string
  readonly #core: Core
  #plan: Plan | undefined

  constructor(core: Core, id: string, plan?: Plan) {
    this.#core = core
    this.id = id
    this.#plan = plan
  }

  get info(): BackupInfo {
    const backup = this.#core.catalog.backup(this.id)
    if (backup === undefined)
      throw new CheckpointError('BACKUP_NOT_FOUND', `there is no backup "${this.id}"; list the backups`, {
        backup: this.id,
      })
    return backupInfo(backup)
  }

  /**
   * What to copy (R25). A handle found again with `store.backup(id)` has it after `loadPlan()`.
   * @throws CheckpointError BACKUP_STATE before that
   */
  get plan(): Plan {
    if (this.#plan !== undefined) return this.#plan
    throw new CheckpointError(
      'BACKUP_STATE',
      `the plan of backup "${this.id}" is not loaded; await loadPlan() first`,
      { backup: this.id },
    )
  }

  /** Makes the plan again from the log: the same extents and digest as at its begin (R26). */
  async loadPlan(): Promise<Plan> {
    this.#plan ??= await this.#core.replay(this.id)
    return this.#plan
  }

  /** R9. In a group: `pending` until every member is done (R14). */
  async succeed(options: CommandOptions = {}): Promise<SucceedAnswer> {
    const { answers } = await this.#core.run([{ type: 'succeed-backup', backup: this.id }], options)
    const { id, state, slice, generation, dropped } = ended(answers[0])
    if (state === 'failed' || state === 'cancelled')
      throw new CheckpointError('BACKUP_STATE', `backup "${id}" ${state} with its group`, {
        backup: id,
        state,
      })
    return {
      id,
      state,
      slice,
      generation,
      droppedSlices: dropped.map(({ bitmap, slice: number }) => ({ [bitmap]: number })),
    }
  }

  /** R10: everything is as before the begin, and what was written meanwhile is merged back. */
  async fail(reason: string, options: CommandOptions = {}): Promise<EndAnswer> {
    return await this.#end({ type: 'fail-backup', backup: this.id, reason }, options)
  }

  async cancel(reason = 'cancelled', options: CommandOptions = {}): Promise<EndAnswer> {
    return await this.#end({ type: 'cancel-backup', backup: this.id, reason }, options)
  }

  /** Of an interrupted backup: its copying goes on (R10). */
  async resume(options: CommandOptions = {}): Promise<void> {
    await this.#core.run([{ type: 'resume-backup', backup: this.id }], options)
  }

  /**
   * Its copy exists no more. No bits, slices or points change; the answer says whether anything was new (`false`: it was
   * forgotten before).
   * @throws CheckpointError BACKUP_STATE when it made no copy
   */
  async forget(told: { readonly reason?: string } = {}, options: CommandOptions = {}): Promise<ForgetAnswer> {
    needObject('what is told of it', told)
    const { reason = '' } = told
    const { answers } = await this.#core.run([{ type: 'forget-backup', backup: this.id, reason }], options)
    const answer = answers[0]
    if (answer?.kind !== 'done') throw new Error('slicelog bug: the answer of a forget is plain')
    return { id: this.id, copy: 'forgotten', changed: answer.changed }
  }

  async #end(
    command: { type: 'fail-backup' | 'cancel-backup'; backup: string; reason: string },
    options: CommandOptions,
  ): Promise<EndAnswer> {
    if (typeof command.reason !== 'string') throw new TypeError('the reason must be a string')
    const { answers } = await this.#core.run([command], options)
    const { id, generation } = ended(answers[0])
    return {
      id,
      state: command.type === 'fail-backup' ? 'failed' : 'cancelled',
      slice: null,
      generation,
      droppedSlices: [],
    }
  }
}

function ended(answer: Answer | undefined): BackupOutcome {
  if (answer?.kind !== 'ended') throw new Error('slicelog bug: the answer of an end is an end')
  return answer
}

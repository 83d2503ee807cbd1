# SPDX-License-Identifier: Apache-2.0
"""The documented types of activities; a query for any other type is refused."""

from __future__ import annotations

# fmt: off
ACTIVITY_TYPES = frozenset(
    {
        "contacted", "hooked", "attracted", "warmed", "interested", "notInterested", "emailsSent",
        "emailsOpened", "emailsClicked", "emailsReplied", "emailsBounced", "emailsFailed",
        "emailsInterested", "emailsNotInterested", "emailsUnsubscribed", "emailsDone", "emailsExternalSent",
        "emailsExternalReceived", "emailsIgnored", "outOfOffice", "mailinblackDetected", "linkedinSent",
        "linkedinOpened", "linkedinReplied", "linkedinInterested", "linkedinNotInterested",
        "linkedinSendFailed", "linkedinVisitDone", "linkedinVisitFailed", "linkedinFollowDone",
        "linkedinFollowFailed", "linkedinFollowSkipped", "linkedinInviteDone", "linkedinInviteFailed",
        "linkedinInviteAccepted", "linkedinEndorseDone", "linkedinEndorseFailed", "linkedinEndorseSkipped",
        "linkedinVoiceNoteDone", "linkedinVoiceNoteFailed", "linkedinLikeLastPostDone",
        "linkedinLikeLastPostNoPost", "linkedinLikeLastPostFailed", "linkedinWithdrawInvitationDone",
        "linkedinWithdrawInvitationFailed", "linkedinDone", "linkedinVisitSkipped",
        "linkedinCommentLastPostDone", "linkedinCommentLastPostFailed", "linkedinCommentLastPostSkipped",
        "linkedinLikeLastPostSkipped", "linkedinInMailSent", "linkedinInMailFailed",
        "linkedinInMailSkipped", "linkedinVoiceNoteReplied", "linkedinIgnored", "whatsappMessageSent",
        "whatsappMessageDelivered", "whatsappMessageOpened", "whatsappReplied", "whatsappMessageFailed",
        "whatsappDone", "whatsappIgnored", "whatsappVoiceNoteSent", "whatsappVoiceNoteDelivered",
        "whatsappVoiceNoteOpened", "whatsappVoiceNoteReplied", "whatsappVoiceNoteFailed",
        "whatsappVoiceNoteIgnored", "smsSent", "smsDelivered", "smsReplied", "smsFailed", "smsDone",
        "smsIgnored", "aircallCreated", "aircallEnded", "aircallDone", "aircallInterested",
        "aircallNotInterested", "aircallIgnored", "apiDone", "apiInterested", "apiNotInterested",
        "apiFailed", "apiUnsubscribed", "apiIgnored", "manualInterested", "manualNotInterested",
        "annotated", "manualDone", "snoozed", "manualIgnored", "manualUnsubscribed", "manualEmailQueued",
        "manualLinkedinSendQueued", "manualLinkedinVoiceNoteQueued", "manualLinkedinInviteQueued",
        "manualLinkedinCommentLastPostQueued", "manualWhatsappMessageQueued",
        "manualWhatsappVoiceNoteQueued", "paused", "resumed", "stopped", "conditionChosen", "meetingBooked",
        "sendToAnotherCampaign", "skipped", "scheduleCancelled", "conditionalFailed", "hasEmailAddress",
        "enrichmentDone", "enrichmentFailed", "enrichmentSkipped", "aiVariableDone", "aiVariableFailed",
        "entityUnsubscribed", "variableUnsubscribed", "entitySubscribed", "variableSubscribed",
    }
)
